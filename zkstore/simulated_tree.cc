#include "zkstore/simulated_tree.h"

#include <algorithm>
#include <cstdio>
#include <optional>

namespace postkeeper::zk {
namespace {

constexpr char kConfigPath[] = "/zookeeper/config";

bool IsSequential(CreateMode mode) {
  return mode == CreateMode::kPersistentSequential || mode == CreateMode::kEphemeralSequential;
}

bool IsEphemeral(CreateMode mode) { return mode == CreateMode::kEphemeral || mode == CreateMode::kEphemeralSequential; }

bool IsReserved(const std::string& path) {
  return path == "/" || path == "/zookeeper" || path == "/zookeeper/quota" || path == kConfigPath;
}

std::string ParentOf(const std::string& path) {
  std::size_t slash = path.rfind('/');
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string NameOf(const std::string& path) { return path.substr(path.rfind('/') + 1); }

std::string WithSequence(const std::string& path, std::int32_t number) {
  char digits[16];
  std::snprintf(digits, sizeof(digits), "%010d", number);
  return path + digits;
}

std::int32_t NextVersion(std::int32_t version) {
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(version) + 1);
}

bool IsVersionWanted(std::int32_t wanted, std::int32_t version) { return wanted == kAnyVersion || wanted == version; }

// What Java makes of the bytes: UTF-16, with a replacement character for what is not UTF-8.
std::u16string ToJavaString(const std::string& bytes) {
  constexpr char16_t kReplacement = 0xfffd;
  std::u16string result;
  for (std::size_t i = 0; i < bytes.size();) {
    auto lead = static_cast<unsigned char>(bytes[i]);
    int length = lead < 0x80                   ? 1
                 : lead >= 0xc2 && lead < 0xe0 ? 2
                 : lead >= 0xe0 && lead < 0xf0 ? 3
                 : lead >= 0xf0 && lead < 0xf5 ? 4
                                               : 0;
    std::uint32_t point = length == 1 ? lead : lead & (0x7fu >> length);
    bool is_well_formed = length > 0 && i + length <= bytes.size();
    for (int k = 1; is_well_formed && k < length; ++k) {
      auto next = static_cast<unsigned char>(bytes[i + k]);
      is_well_formed = (next & 0xc0) == 0x80;
      point = point << 6 | (next & 0x3f);
    }
    constexpr std::uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
    if (!is_well_formed || point < kSmallest[length] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) {
      result += kReplacement;
      ++i;
      continue;
    }
    if (point >= 0x10000) {
      result += static_cast<char16_t>(0xd800 + ((point - 0x10000) >> 10));
      result += static_cast<char16_t>(0xdc00 + ((point - 0x10000) & 0x3ff));
    } else {
      result += static_cast<char16_t>(point);
    }
    i += length;
  }
  return result;
}

// HashMap.hash(String.hashCode()).
std::uint32_t JavaHash(const std::string& text) {
  std::uint32_t hash = 0;
  for (char16_t unit : ToJavaString(text)) hash = 31 * hash + unit;
  return hash ^ hash >> 16;
}

// Whether the name that ends at `end` (exclusive) is "." or "..".
bool EndsInRelativeName(std::u16string_view path, std::size_t end) {
  std::size_t slash = path.rfind(u'/', end - 1);
  std::u16string_view name = path.substr(slash + 1, end - slash - 1);
  return name == u"." || name == u"..";
}

}  // namespace

bool IsPathForServer(const std::string& path) {
  std::u16string text = ToJavaString(path);
  if (text.empty() || text[0] != '/') return false;
  if (text.size() == 1) return true;
  if (text.back() == '/') return false;
  for (std::size_t i = 1; i < text.size(); ++i) {
    char16_t c = text[i];
    if (c == '/' && (text[i - 1] == '/' || EndsInRelativeName(text, i))) return false;
    if (c <= 0x1f || (c >= 0x7f && c <= 0x9f) || (c >= 0xd800 && c <= 0xf8ff) || c >= 0xfff0) return false;
  }
  return !EndsInRelativeName(text, text.size());
}

bool IsPathForClient(const std::string& path, bool is_sequential) {
  std::string whole = is_sequential ? path + '1' : path;  // a number will follow
  if (whole.empty() || whole[0] != '/') return false;
  if (whole == "/") return true;
  for (std::size_t start = 1; start <= whole.size();) {
    std::string name = whole.substr(start, whole.find('/', start) - start);
    if (name.empty() || name == "." || name == "..") return false;
    for (unsigned char c : name) {
      if (c < 0x20 || c == 0x7f) return false;
    }
    start += name.size() + 1;
  }
  return whole.back() != '/';
}

Stat SimulatedTree::Node::CurrentStat() const {
  Stat current = stat;
  current.num_children = static_cast<std::int32_t>(children.size());
  current.cversion = creates * 2 - current.num_children;
  current.data_length = static_cast<std::int32_t>(data.size());
  return current;
}

void SimulatedTree::EphemeralSet::Add(const std::string& path) {
  paths_.push_back(path);
  if (paths_.size() * 4 > table_size_ * 3) table_size_ *= 2;
}

void SimulatedTree::EphemeralSet::Remove(const std::string& path) {
  paths_.erase(std::remove(paths_.begin(), paths_.end(), path), paths_.end());
}

std::vector<std::string> SimulatedTree::EphemeralSet::InJavaOrder() const {
  std::vector<std::string> order = paths_;
  auto sort_by_bucket = [&order](std::size_t table_size) {
    std::stable_sort(order.begin(), order.end(), [table_size](const std::string& a, const std::string& b) {
      return (JavaHash(a) & (table_size - 1)) < (JavaHash(b) & (table_size - 1));
    });
  };
  sort_by_bucket(table_size_);
  // The server lists a copy, whose table is made to measure.
  auto wanted = static_cast<std::size_t>(static_cast<float>(order.size()) / 0.75f + 1.0f);
  std::size_t copy_size = 1;
  while (copy_size < wanted) copy_size *= 2;
  sort_by_bucket(copy_size);
  return order;
}

class SimulatedTree::Draft {
 public:
  explicit Draft(const SimulatedTree& tree) : tree_(tree) {}

  // A record to read or to change; one that does not exist is a fresh record.
  Record& Of(const std::string& path) {
    auto [it, is_new] = records_.try_emplace(path);
    if (!is_new) return it->second;
    auto node = tree_.nodes_.find(path);
    if (node == tree_.nodes_.end()) return it->second;
    const Node& found = node->second;
    it->second = {.exists = true,
                  .version = found.stat.version,
                  .creates = found.creates,
                  .num_children = static_cast<std::int32_t>(found.children.size()),
                  .ephemeral_owner = found.stat.ephemeral_owner};
    return it->second;
  }

 private:
  const SimulatedTree& tree_;
  std::unordered_map<std::string, Record> records_;
};

SimulatedTree::SimulatedTree() {
  for (const char* path : {"/", "/zookeeper", "/zookeeper/quota", kConfigPath}) nodes_[path];
  nodes_["/"].children = {"zookeeper"};
  nodes_["/zookeeper"].children = {"config", "quota"};
}

Code SimulatedTree::PrepareCreate(const Op& op, const Transaction& transaction, Draft& draft,
                                  std::string& path_made) const {
  if (op.path.find('/') == std::string::npos || op.path.find('\0') != std::string::npos) return Code::kBadArguments;
  std::string parent_path = ParentOf(op.path);
  Record& parent = draft.Of(parent_path);
  if (!parent.exists) return Code::kNoNode;
  if (parent_path == kConfigPath) return Code::kNoAuth;
  path_made = IsSequential(op.mode) ? WithSequence(op.path, parent.creates) : op.path;
  if (!IsPathForServer(path_made)) return Code::kBadArguments;
  Record& node = draft.Of(path_made);
  if (node.exists) return Code::kNodeExists;
  if (parent.ephemeral_owner != 0) return Code::kNoChildrenForEphemerals;
  ++parent.creates;
  ++parent.num_children;
  node = {.exists = true, .ephemeral_owner = IsEphemeral(op.mode) ? transaction.session_id : 0};
  return Code::kOk;
}

Code SimulatedTree::PrepareDelete(const Op& op, Draft& draft) const {
  if (op.path.find('/') == std::string::npos || op.path.find('\0') != std::string::npos || IsReserved(op.path)) {
    return Code::kBadArguments;
  }
  Record& parent = draft.Of(ParentOf(op.path));
  if (!parent.exists) return Code::kNoNode;
  Record& node = draft.Of(op.path);
  if (!node.exists) return Code::kNoNode;
  if (!IsVersionWanted(op.version, node.version)) return Code::kBadVersion;
  if (node.num_children > 0) return Code::kNotEmpty;
  --parent.num_children;
  node = {};
  return Code::kOk;
}

Code SimulatedTree::Prepare(const Op& op, const Transaction& transaction, Draft& draft, std::string& path_made) const {
  if (op.kind == Op::Kind::kCreate) return PrepareCreate(op, transaction, draft, path_made);
  if (op.kind == Op::Kind::kDelete) return PrepareDelete(op, draft);
  if (!IsPathForServer(op.path)) return Code::kBadArguments;
  Record& node = draft.Of(op.path);
  if (!node.exists) return Code::kNoNode;
  if (op.kind == Op::Kind::kSet && op.path == kConfigPath) return Code::kNoAuth;
  if (!IsVersionWanted(op.version, node.version)) return Code::kBadVersion;
  if (op.kind == Op::Kind::kSet) node.version = NextVersion(node.version);
  return Code::kOk;
}

void SimulatedTree::ApplyCreate(const Op& op, const std::string& path, const Transaction& transaction,
                                std::vector<TreeEvent>& events) {
  std::string parent_path = ParentOf(path);
  Node& parent = nodes_.at(parent_path);
  ++parent.creates;
  parent.stat.pzxid = transaction.zxid;
  parent.children.insert(NameOf(path));

  Node& node = nodes_[path];
  node.data = op.data;
  node.stat.czxid = node.stat.mzxid = node.stat.pzxid = transaction.zxid;
  node.stat.ctime_ms = node.stat.mtime_ms = transaction.time_ms;
  if (IsEphemeral(op.mode)) {
    node.stat.ephemeral_owner = transaction.session_id;
    ephemerals_[transaction.session_id].Add(path);
  }
  events.push_back({WatchType::kCreated, path});
  events.push_back({WatchType::kChildren, parent_path});
}

void SimulatedTree::ApplyDelete(const std::string& path, const Transaction& transaction,
                                std::vector<TreeEvent>& events) {
  auto node = nodes_.find(path);
  if (std::int64_t owner = node->second.stat.ephemeral_owner; owner != 0) {
    if (auto of_owner = ephemerals_.find(owner); of_owner != ephemerals_.end()) of_owner->second.Remove(path);
  }
  nodes_.erase(node);
  std::string parent_path = ParentOf(path);
  Node& parent = nodes_.at(parent_path);
  parent.children.erase(NameOf(path));
  parent.stat.pzxid = transaction.zxid;
  events.push_back({WatchType::kDeleted, path});
  events.push_back({WatchType::kChildren, parent_path});
}

OpResult SimulatedTree::Apply(const Op& op, const std::string& path_made, const Transaction& transaction,
                              std::vector<TreeEvent>& events) {
  OpResult result;
  switch (op.kind) {
    case Op::Kind::kCreate:
      ApplyCreate(op, path_made, transaction, events);
      result.path = path_made;
      break;
    case Op::Kind::kDelete:
      ApplyDelete(op.path, transaction, events);
      break;
    case Op::Kind::kSet: {
      Node& node = nodes_.at(op.path);
      node.data = op.data;
      node.stat.version = NextVersion(node.stat.version);
      node.stat.mzxid = transaction.zxid;
      node.stat.mtime_ms = transaction.time_ms;
      result.stat = node.CurrentStat();
      events.push_back({WatchType::kChanged, op.path});
      break;
    }
    case Op::Kind::kCheck:
      break;
  }
  return result;
}

Response SimulatedTree::WriteAll(const std::vector<Op>& ops, const Transaction& transaction,
                                 std::vector<TreeEvent>& events) {
  Draft draft(*this);
  std::vector<std::string> paths_made(ops.size());
  Response response{.zxid = transaction.zxid};
  response.results.resize(ops.size());
  for (std::size_t i = 0; i < ops.size(); ++i) {
    response.code = Prepare(ops[i], transaction, draft, paths_made[i]);
    if (response.code == Code::kOk) continue;
    for (std::size_t k = 0; k < i; ++k) response.results[k].code = Code::kRolledBack;
    response.results[i].code = response.code;
    for (std::size_t k = i + 1; k < ops.size(); ++k) response.results[k].code = Code::kRuntimeInconsistency;
    return response;
  }
  for (std::size_t i = 0; i < ops.size(); ++i) {
    response.results[i] = Apply(ops[i], paths_made[i], transaction, events);
  }
  return response;
}

Response SimulatedTree::Write(const Request& request, const Transaction& transaction, std::vector<TreeEvent>& events) {
  if (request.kind == Request::Kind::kMulti) return WriteAll(request.ops, transaction, events);
  Op op;
  op.kind = request.kind == Request::Kind::kCreate ? Op::Kind::kCreate
            : request.kind == Request::Kind::kSet  ? Op::Kind::kSet
                                                   : Op::Kind::kDelete;
  op.path = request.path;
  op.data = request.data;
  op.version = request.version;
  op.mode = request.mode;
  std::vector<Op> ops;
  ops.push_back(std::move(op));
  Response response = WriteAll(ops, transaction, events);
  response.path = std::move(response.results[0].path);
  response.stat = response.results[0].stat;
  response.results.clear();
  return response;
}

Response SimulatedTree::Read(const Request& request) const {
  Response response;
  auto found = nodes_.find(request.path);
  if (found == nodes_.end()) {
    response.code = Code::kNoNode;
    return response;
  }
  const Node& node = found->second;
  response.stat = node.CurrentStat();
  if (request.kind == Request::Kind::kGet) response.data = node.data;
  if (request.kind == Request::Kind::kChildren) response.children.assign(node.children.begin(), node.children.end());
  return response;
}

void SimulatedTree::RemoveEphemerals(const Transaction& transaction, std::vector<TreeEvent>& events) {
  auto found = ephemerals_.find(transaction.session_id);
  if (found == ephemerals_.end()) return;
  std::vector<std::string> paths = found->second.InJavaOrder();
  ephemerals_.erase(found);
  for (const std::string& path : paths) ApplyDelete(path, transaction, events);
}

const std::string* SimulatedTree::FindData(const std::string& path) const {
  auto found = nodes_.find(path);
  return found == nodes_.end() ? nullptr : &found->second.data;
}

bool SimulatedTree::FindStat(const std::string& path, Stat& stat) const {
  auto found = nodes_.find(path);
  if (found == nodes_.end()) return false;
  stat = found->second.CurrentStat();
  return true;
}

std::vector<std::string> SimulatedTree::Paths() const {
  std::vector<std::string> paths;
  for (const auto& [path, node] : nodes_) {
    if (path != "/zookeeper" && path.rfind("/zookeeper/", 0) != 0) paths.push_back(path);
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace postkeeper::zk
