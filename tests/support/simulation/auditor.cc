#include "tests/support/simulation/auditor.h"

#include <utility>

#include "postkeeper/storage/v1/records.pb.h"
#include "zkstore/batch.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

using State = OwnerView::State;

// "abc" of "abc/d/e"; `text` becomes "d/e".
std::string_view TakeSegment(std::string_view& text) {
  const std::size_t slash = text.find('/');
  const std::string_view segment = text.substr(0, slash);
  text.remove_prefix(slash == std::string_view::npos ? text.size() : slash + 1);
  return segment;
}

OwnerView Decode(const std::string& data) {
  storage::v1::OwnerRecord record;
  OwnerView view;
  if (!record.ParseFromString(data)) return view;
  view.epoch = record.epoch();
  view.first_epoch = record.first_epoch();
  view.first_epoch_before = record.first_epoch_before();
  if (record.state() == storage::v1::OwnerRecord::STATE_DELETED) view.state = State::kDeleted;
  if (record.state() == storage::v1::OwnerRecord::STATE_PROCESS) {
    view.state = State::kProcess;
    view.process = ProcessId::FromBytes(record.process_id()).value_or(ProcessId{});
  }
  return view;
}

}  // namespace

Auditor::Auditor(zk::SimulatedEnsemble& ensemble, const Layout& layout, History& history, Tracer trace)
    : ensemble_(ensemble), layout_(layout), history_(history), trace_(std::move(trace)) {
  ensemble_.SetTreeObserver([this](const zk::TreeEvent& event) { OnEvent(event); });
}

Auditor::~Auditor() { ensemble_.SetTreeObserver(nullptr); }

void Auditor::OnEvent(const zk::TreeEvent& event) {
  std::string_view path = event.path;
  const std::string replicas = layout_.Replicas() + "/";
  if (path.starts_with(replicas) && event.type == zk::WatchType::kCreated) {
    const std::optional<ProcessId> process = ProcessId::FromHex(path.substr(replicas.size()));
    if (process) sessions_[ensemble_.writing_session()] = *process;
    return;
  }
  const std::string data = layout_.Data() + "/";
  if (!path.starts_with(data) || event.type == zk::WatchType::kChildren) return;
  path.remove_prefix(data.size());
  const std::optional<Uid> uid = Uid::FromHex(TakeSegment(path));
  if (!uid || path.empty()) return;
  const std::string_view room = TakeSegment(path);
  const bool is_deleted = event.type == zk::WatchType::kDeleted;
  if (room == "owner" && !is_deleted) return OnOwner(*uid, event.path);
  if (room == "head" && event.type == zk::WatchType::kChanged) return OnOwnersWrite(*uid, "head");
  if ((room == "cursors" || room == "parts" || room == "dedup" || room == "kept") && !path.empty()) {
    return OnOwnersWrite(*uid, room);
  }
  if (room != "log" || path.empty()) return;
  const std::optional<std::uint64_t> segment = Layout::ParseSegment(TakeSegment(path));
  if (is_deleted) OnOwnersWrite(*uid, path.empty() ? "a deleted segment" : "a deleted batch");
  const std::optional<std::uint32_t> number = Layout::ParseBatch(event.path);
  if (!segment || path.empty() || !number) return;
  const Position at(*segment, *number, 0);
  if (event.type == zk::WatchType::kCreated) OnBatchCreated(*uid, at, event.path);
  if (is_deleted) OnBatchDeleted(*uid, at);
}

void Auditor::OnOwner(const Uid& uid, const std::string& path) {
  Owner& owner = owners_[uid];
  owner.before = std::exchange(owner.view, Decode(*ensemble_.tree().FindData(path)));
  owner.zxid = ensemble_.zxid();
  const auto log = history_.logs.find(uid);
  if (log == history_.logs.end()) return;
  const Instant now = ensemble_.environment().Now();
  trace_(Cat("the owner of ", log->second.name, " in epoch ", owner.view.epoch, ": ",
             owner.view.state == State::kProcess   ? EncodeProcessId(owner.view.process).substr(0, 6)
             : owner.view.state == State::kDeleted ? "deleted"
                                                   : "nobody"));
  if (owner.view.state == State::kDeleted) log->second.deleted = history_.Now(now);
  const auto writer = sessions_.find(ensemble_.writing_session());
  const bool is_by_owner = writer != sessions_.end() && writer->second == owner.before.process;
  if (owner.view.state == State::kNobody && owner.before.state == State::kProcess && is_by_owner) {
    log->second.handed_over_epochs.insert(owner.view.epoch);
  }
  if (owner.view.state != State::kProcess) return;
  log->second.reigns[owner.view.epoch] = {owner.view.first_epoch, owner.view.first_epoch_before};
  if (owner.before.state == State::kProcess) log->second.taken_at[owner.view.epoch] = now;
}

void Auditor::OnOwnersWrite(const Uid& uid, std::string_view what) {
  const auto owner = owners_.find(uid);
  const auto writer = sessions_.find(ensemble_.writing_session());
  if (owner == owners_.end() || writer == sessions_.end()) return;
  const bool is_changing = owner->second.zxid == ensemble_.zxid();
  const OwnerView& view = is_changing ? owner->second.before : owner->second.view;
  if (view.state == State::kDeleted || owner->second.view.state == State::kDeleted) return;  // whoever sweeps
  ++history_.owner_writes;
  if (view.state == State::kProcess && view.process == writer->second) return;
  history_.Violate(ensemble_.environment().Now(),
                   Cat("G7: a process that does not own the log writes on its behalf: ", what));
}

void Auditor::OnBatchCreated(const Uid& uid, Position at, const std::string& path) {
  const Instant now = ensemble_.environment().Now();
  const auto log = history_.logs.find(uid);
  if (log == history_.logs.end()) return;
  zk::Stat stat;
  const std::string* data = ensemble_.tree().FindData(path);
  ensemble_.tree().FindStat(path, stat);
  const absl::StatusOr<std::shared_ptr<const Batch>> batch = Batch::Decode(*data);
  if (!batch.ok()) return history_.Violate(now, "G1: a stored batch cannot be read");
  const bool is_after_delete = log->second.deleted && (*batch)->size() > 0 && owners_[uid].zxid != ensemble_.zxid();
  if (is_after_delete)
    history_.Violate(now, Cat("G7: something is appended to ", log->second.name, " after its deletion"));
  for (int i = 0; i < (*batch)->size(); ++i) {
    const Position position = Position::FromValue(at.value() + static_cast<std::uint64_t>(i));
    History::Stored& stored = history_.stored[{uid, position}];
    stored.text = (*batch)->message(i);
    stored.message_id = (*batch)->MessageId(i);
    stored.created = history_.Now(now);
    stored.create_time = WallTime(std::chrono::milliseconds(stat.ctime_ms));
    history_.places[stored.text].emplace_back(uid, position);
    trace_(Cat("stored ", stored.text, " in ", log->second.name, " at ", position.DebugString()));
  }
}

void Auditor::OnBatchDeleted(const Uid& uid, Position at) {
  const Moment now = history_.Now(ensemble_.environment().Now());
  const auto end = history_.stored.lower_bound({uid, at.NextBatch()});
  for (auto stored = history_.stored.lower_bound({uid, at}); stored != end; ++stored) {
    stored->second.deleted = now;
    stored->second.delete_time = ensemble_.environment().WallNow();
    trace_(Cat("deleted ", stored->second.text, " at ", stored->first.second.DebugString()));
  }
}

}  // namespace postkeeper
