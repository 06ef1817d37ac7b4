#include "zkstore/owner.h"

#include <utility>

#include "postkeeper/storage/v1/records.pb.h"
#include "zkstore/errors.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

using storage::v1::OwnerRecord;

constexpr int kTakeAttemptsMax = 8;

std::string Encode(OwnerRecord::State state, const OwnerView& owner, const ProcessId* process,
                   std::string_view address) {
  OwnerRecord record;
  record.set_state(state);
  record.set_epoch(owner.epoch);
  record.set_first_epoch(owner.first_epoch);
  record.set_first_epoch_before(owner.first_epoch_before);
  record.set_taker(owner.taker);
  record.set_leases_unknown(state == OwnerRecord::STATE_NOBODY && owner.leases_unknown);
  if (process != nullptr) record.set_process_id(process->ToBytes());
  record.set_address(std::string(address));
  return record.SerializeAsString();
}

void CountEpoch(const OwnerView& before, bool is_ours, const TakeOptions& options, OwnerView& mine) {
  mine.epoch = before.epoch + 1;
  mine.first_epoch = mine.epoch;
  mine.first_epoch_before = before.first_epoch;
  if (!is_ours) return;
  if (options.keeps_reign) mine.first_epoch = before.first_epoch;
  const bool is_same_taker = options.taker != 0 && before.taker == options.taker;
  const bool led_to_nothing = is_same_taker && before.first_epoch != options.served_reign;
  if (options.keeps_reign || led_to_nothing) mine.first_epoch_before = before.first_epoch_before;
}

}  // namespace

absl::Status UnavailableError(const zk::Response& response, std::string_view what) {
  return MakeError(Reason::kZookeeperUnavailable,
                   Cat("ZooKeeper did not ", what, " (", zk::CodeName(response.code), ")"));
}

Task<absl::StatusOr<OwnerView>> ReadOwner(zk::Client& client, const Layout& layout, Uid log, zk::Watcher watcher) {
  const zk::Response read = co_await client.Get(layout.Owner(log), std::move(watcher));
  if (read.code == zk::Code::kNoNode) co_return absl::NotFoundError("there is no such log");
  if (read.code != zk::Code::kOk) co_return UnavailableError(read, "tell the owner of the log");
  OwnerRecord record;
  const bool parses = record.ParseFromString(read.data);
  const std::optional<ProcessId> process = ProcessId::FromBytes(record.process_id());
  if (!parses || (record.state() == OwnerRecord::STATE_PROCESS && !process)) {
    co_return MakeError(Reason::kStoreCorrupt, "the owner record cannot be read", {.path = layout.Owner(log)});
  }
  OwnerView view;
  view.epoch = record.epoch();
  view.first_epoch = record.first_epoch() > 0 ? record.first_epoch() : record.epoch();
  view.first_epoch_before = record.first_epoch_before();
  view.taker = record.taker();
  view.leases_unknown = record.leases_unknown();
  view.version = read.stat.version;
  view.written = WallTime(std::chrono::milliseconds(read.stat.mtime_ms));
  if (record.state() == OwnerRecord::STATE_DELETED) {
    view.state = OwnerView::State::kDeleted;
  } else if (record.state() == OwnerRecord::STATE_PROCESS) {
    view.state = OwnerView::State::kProcess;
    view.process = *process;
    view.address = record.address();
  } else if (process) {
    view.process = *process;
  }
  co_return view;
}

Task<absl::StatusOr<OwnerView>> TakeOwnership(zk::Client& client, const Layout& layout, Uid log, ProcessId process,
                                              std::string address, TakeOptions options) {
  for (int attempt = 0; attempt < kTakeAttemptsMax; ++attempt) {
    absl::StatusOr<OwnerView> owner = co_await ReadOwner(client, layout, log);
    if (!owner.ok()) co_return owner.status();
    if (owner->state == OwnerView::State::kDeleted) co_return absl::NotFoundError("the log is deleted");
    if (owner->state == OwnerView::State::kProcess && owner->process != process) {
      // Whoever sees the record also sees the registration, which was made before it: absent means gone.
      const zk::Response registration = co_await client.Exists(layout.Replica(owner->process));
      if (registration.code == zk::Code::kOk) {
        co_return MakeError(Reason::kNoOwner, Cat("the replica at ", owner->address, " owns it"));
      }
      if (registration.code != zk::Code::kNoNode) co_return UnavailableError(registration, "say who is registered");
    }
    const bool is_ours = owner->state == OwnerView::State::kProcess && owner->process == process;
    if (!is_ours && options.may_take && !options.may_take(*owner)) {
      co_return MakeError(Reason::kNoOwner, "the log is free, and another replica should take it");
    }
    OwnerView mine{.state = OwnerView::State::kProcess,
                   .process = process,
                   .address = address,
                   .version = owner->version + 1,
                   .was_let_down = owner->state == OwnerView::State::kProcess || owner->leases_unknown};
    mine.taker = options.taker;
    CountEpoch(*owner, is_ours, options, mine);
    const zk::Response taken = co_await client.Set(
        layout.Owner(log), Encode(OwnerRecord::STATE_PROCESS, mine, &process, address), owner->version);
    mine.written = WallTime(std::chrono::milliseconds(taken.stat.mtime_ms));
    if (taken.code == zk::Code::kOk) co_return mine;
    // Somebody was faster, or an earlier attempt of ours whose reply was lost.
    if (taken.code != zk::Code::kBadVersion) co_return UnavailableError(taken, "take the ownership of the log");
  }
  co_return MakeError(Reason::kNoOwner, "the log changes its owner too fast");
}

zk::Op LetGoOp(const Layout& layout, const Uid& log, const OwnerView& held) {
  return zk::Op::Set(layout.Owner(log), Encode(OwnerRecord::STATE_NOBODY, held, &held.process, ""), held.version);
}

OwnerView AsNeverServed(OwnerView held) {
  held.first_epoch = held.first_epoch_before;
  held.leases_unknown = true;
  return held;
}

zk::Op MarkDeletedOp(const Layout& layout, const Uid& log, const OwnerView& held) {
  return zk::Op::Set(layout.Owner(log), Encode(OwnerRecord::STATE_DELETED, held, nullptr, ""), held.version);
}

std::string NobodysOwnerRecord() { return Encode(OwnerRecord::STATE_NOBODY, OwnerView(), nullptr, ""); }

}  // namespace postkeeper
