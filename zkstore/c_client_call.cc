#include "zkstore/c_client_call.h"

#include <algorithm>
#include <string_view>

namespace postkeeper::zk {
namespace {

constexpr std::size_t kSequenceDigits = 11;  // ten, and a sign after 2^31 creates

Stat ToStat(const ::Stat& stat) {
  return {.czxid = stat.czxid,
          .mzxid = stat.mzxid,
          .pzxid = stat.pzxid,
          .ctime_ms = stat.ctime,
          .mtime_ms = stat.mtime,
          .version = stat.version,
          .cversion = stat.cversion,
          .ephemeral_owner = stat.ephemeralOwner,
          .data_length = stat.dataLength,
          .num_children = stat.numChildren};
}

bool IsSequential(CreateMode mode) {
  return mode == CreateMode::kPersistentSequential || mode == CreateMode::kEphemeralSequential;
}

int Flags(CreateMode mode) {
  switch (mode) {
    case CreateMode::kPersistent:
      return ZOO_PERSISTENT;
    case CreateMode::kEphemeral:
      return ZOO_EPHEMERAL;
    case CreateMode::kPersistentSequential:
      return ZOO_PERSISTENT_SEQUENTIAL;
    case CreateMode::kEphemeralSequential:
      return ZOO_EPHEMERAL_SEQUENTIAL;
  }
  return ZOO_PERSISTENT;
}

CClientCall& CallOf(const void* data) { return *static_cast<CClientCall*>(const_cast<void*>(data)); }

void Finish(CClientCall& call, int rc, Response response) {
  response.code = CodeOf(rc);
  call.owner->OnReply(call, rc, std::move(response));
}

// The same number means two things: of an operation of a multi, that another one failed; of a whole request, that the
// C client did not understand the server and dropped the connection.
Code CodeOfOperation(int rc) { return rc == ZRUNTIMEINCONSISTENCY ? Code::kRuntimeInconsistency : CodeOf(rc); }

// True if ZooKeeper takes `path`.
bool IsValidPath(std::string_view path, bool is_sequential) {
  if (path.empty() || path.front() != '/') return false;
  if (path == "/" && !is_sequential) return true;
  std::string whole(path);
  if (is_sequential) whole += '1';  // the number follows: "/a/" becomes "/a/0000000000"
  std::string_view rest = std::string_view(whole).substr(1);
  while (true) {
    std::size_t slash = rest.find('/');
    std::string_view name = rest.substr(0, slash);
    if (name.empty() || name == "." || name == "..") return false;
    for (unsigned char c : name) {
      if (c < 0x20 || c == 0x7f) return false;
    }
    if (slash == std::string_view::npos) return true;
    rest.remove_prefix(slash + 1);
  }
}

// The completions that the C client calls, by the shape of the reply.

void OnPath(int rc, const char* path, const void* data) {
  CClientCall& call = CallOf(data);
  Response response;
  if (rc == ZOK && path != nullptr && call.request.kind == Request::Kind::kCreate) response.path = path;
  Finish(call, rc, std::move(response));
}

void OnNothing(int rc, const void* data) { Finish(CallOf(data), rc, {}); }

void OnStat(int rc, const ::Stat* stat, const void* data) {
  Response response;
  if (rc == ZOK && stat != nullptr) response.stat = ToStat(*stat);
  Finish(CallOf(data), rc, std::move(response));
}

void OnData(int rc, const char* value, int length, const ::Stat* stat, const void* data) {
  Response response;
  if (rc == ZOK && value != nullptr && length > 0) response.data.assign(value, static_cast<std::size_t>(length));
  if (rc == ZOK && stat != nullptr) response.stat = ToStat(*stat);
  Finish(CallOf(data), rc, std::move(response));
}

void OnChildren(int rc, const String_vector* names, const ::Stat* stat, const void* data) {
  Response response;
  if (rc == ZOK && names != nullptr) response.children.assign(names->data, names->data + names->count);
  std::sort(response.children.begin(), response.children.end());
  if (rc == ZOK && stat != nullptr) response.stat = ToStat(*stat);
  Finish(CallOf(data), rc, std::move(response));
}

void OnMulti(int rc, const void* data) {
  CClientCall& call = CallOf(data);
  Response response;
  if (!IsDefinite(CodeOf(rc))) return Finish(call, rc, {});
  for (std::size_t i = 0; i < call.results.size(); ++i) {
    const zoo_op_result_t& from = call.results[i];
    OpResult& to = response.results.emplace_back();
    to.code = CodeOfOperation(from.err);
    // The server answers 0 for the operations before the one that failed, though they were rolled back with it.
    if (rc != ZOK && from.err == ZOK) to.code = Code::kRolledBack;
    if (to.code != Code::kOk) continue;
    if (from.value != nullptr) to.path = from.value;
    if (from.stat != nullptr) to.stat = ToStat(*from.stat);
  }
  Finish(call, rc, std::move(response));
}

int SendMulti(zhandle_t* handle, CClientCall& call) {
  const std::vector<Op>& ops = call.request.ops;
  std::vector<zoo_op_t> c_ops(ops.size());
  call.results.assign(ops.size(), {});
  call.created_paths.assign(ops.size(), {});
  call.stats.assign(ops.size(), {});
  for (std::size_t i = 0; i < ops.size(); ++i) {
    const Op& op = ops[i];
    const int length = static_cast<int>(op.data.size());
    switch (op.kind) {
      case Op::Kind::kCreate: {
        std::string& made = call.created_paths[i];
        made.assign(op.path.size() + kSequenceDigits + 1, '\0');
        zoo_create_op_init(&c_ops[i], op.path.c_str(), op.data.data(), length, &ZOO_OPEN_ACL_UNSAFE, Flags(op.mode),
                           made.data(), static_cast<int>(made.size()));
        break;
      }
      case Op::Kind::kSet:
        zoo_set_op_init(&c_ops[i], op.path.c_str(), op.data.data(), length, op.version, &call.stats[i]);
        break;
      case Op::Kind::kDelete:
        zoo_delete_op_init(&c_ops[i], op.path.c_str(), op.version);
        break;
      case Op::Kind::kCheck:
        zoo_check_op_init(&c_ops[i], op.path.c_str(), op.version);
        break;
    }
  }
  return zoo_amulti(handle, static_cast<int>(ops.size()), c_ops.data(), call.results.data(), OnMulti, &call);
}

}  // namespace

int SendCall(zhandle_t* handle, CClientCall& call, watcher_fn watcher) {
  const Request& request = call.request;
  const char* path = request.path.c_str();
  const int length = static_cast<int>(request.data.size());
  watcher_fn armed = call.watch_id != 0 ? watcher : nullptr;
  void* context = reinterpret_cast<void*>(static_cast<std::uintptr_t>(call.watch_id));
  switch (request.kind) {
    case Request::Kind::kCreate:
      return zoo_acreate(handle, path, request.data.data(), length, &ZOO_OPEN_ACL_UNSAFE, Flags(request.mode), OnPath,
                         &call);
    case Request::Kind::kGet:
      return zoo_awget(handle, path, armed, context, OnData, &call);
    case Request::Kind::kSet:
      return zoo_aset(handle, path, request.data.data(), length, request.version, OnStat, &call);
    case Request::Kind::kDelete:
      return zoo_adelete(handle, path, request.version, OnNothing, &call);
    case Request::Kind::kExists:
      return zoo_awexists(handle, path, armed, context, OnStat, &call);
    case Request::Kind::kChildren:
      return zoo_awget_children2(handle, path, armed, context, OnChildren, &call);
    case Request::Kind::kMulti:
      return SendMulti(handle, call);
    case Request::Kind::kSync:
      return zoo_async(handle, path, OnPath, &call);
  }
  return ZBADARGUMENTS;
}

Code CodeOf(int rc) {
  switch (rc) {
    case ZOK:
      return Code::kOk;
    case ZNONODE:
      return Code::kNoNode;
    case ZNODEEXISTS:
      return Code::kNodeExists;
    case ZBADVERSION:
      return Code::kBadVersion;
    case ZNOTEMPTY:
      return Code::kNotEmpty;
    case ZNOCHILDRENFOREPHEMERALS:
      return Code::kNoChildrenForEphemerals;
    case ZBADARGUMENTS:
      return Code::kBadArguments;
    case ZNOAUTH:
      return Code::kNoAuth;
    case ZINVALIDACL:
      return Code::kInvalidAcl;
    case ZTHROTTLEDOP:
      return Code::kThrottled;
    case ZSESSIONMOVED:
      return Code::kSessionMoved;
    case ZUNIMPLEMENTED:
      return Code::kOtherDefinite;
    case ZSESSIONEXPIRED:
      return Code::kSessionExpired;
    case ZCLOSING:
      return Code::kClosed;
    case ZAUTHFAILED:
      return Code::kConnectionLoss;  // what the C client ends requests with when it gives up
    default:
      return rc < ZAPIERROR ? Code::kOtherDefinite : Code::kConnectionLoss;
  }
}

bool IsAnswer(int rc) { return IsDefinite(CodeOf(rc)); }

std::optional<std::size_t> FirstInvalidPath(const Request& request) {
  if (request.kind != Request::Kind::kMulti) {
    bool is_sequential = request.kind == Request::Kind::kCreate && IsSequential(request.mode);
    if (!IsValidPath(request.path, is_sequential)) return kWhole;
    return std::nullopt;
  }
  for (std::size_t i = 0; i < request.ops.size(); ++i) {
    const Op& op = request.ops[i];
    if (!IsValidPath(op.path, op.kind == Op::Kind::kCreate && IsSequential(op.mode))) return i;
  }
  return std::nullopt;
}

Response Refusal(const Request& request, Code code, std::size_t failed) {
  Response response{.code = code};
  if (!IsDefinite(code)) return response;
  for (std::size_t i = 0; i < request.ops.size(); ++i) {
    Code op_code = code;
    if (failed != kWhole && i < failed) op_code = Code::kRolledBack;
    if (failed != kWhole && i > failed) op_code = Code::kRuntimeInconsistency;
    response.results.push_back({.code = op_code});
  }
  return response;
}

WatchType WatchTypeOf(int type) {
  if (type == ZOO_CREATED_EVENT) return WatchType::kCreated;
  if (type == ZOO_DELETED_EVENT) return WatchType::kDeleted;
  if (type == ZOO_CHANGED_EVENT) return WatchType::kChanged;
  if (type == ZOO_CHILD_EVENT) return WatchType::kChildren;
  return WatchType::kLost;
}

}  // namespace postkeeper::zk
