#include "zkstore/cursor.h"

#include <algorithm>
#include <utility>

#include "postkeeper/storage/v1/records.pb.h"
#include "zkstore/errors.h"
#include "zkstore/mutation.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

using storage::v1::CursorRecord;
using storage::v1::HeadRecord;
using storage::v1::PartRecord;

constexpr Duration kRetryPause = std::chrono::milliseconds(50);
// What one change adds to a write at worst.
constexpr std::size_t kBytesPerChange = 12;
// Old part znodes removed by one write.
constexpr std::size_t kDeletedPartsMax = 32;
constexpr std::size_t kOwnerOp = 0;

}  // namespace

Cursor::Cursor(Environment& environment, zk::Client& client, const Layout& layout, const Uid& log, const Uid& source,
               const OwnerView& held, asio::any_io_executor strand, Listener listener, std::int32_t version_max)
    : environment_(environment),
      client_(client),
      layout_(layout),
      log_(log),
      source_(source),
      strand_(strand),
      listener_(std::move(listener)),
      version_max_(version_max),
      held_(held),
      connected_at_(environment.Now()),
      wake_(environment, strand) {}

Cursor::~Cursor() = default;

Task<absl::Status> Cursor::Load() {
  const zk::Response names = co_await client_.Children(layout_.Cursors(log_));
  if (names.code != zk::Code::kOk) co_return UnavailableError(names, "list the cursors");
  std::optional<std::uint32_t> generation;
  for (const std::string& name : names.children) {
    const std::optional<Layout::CursorName> parsed = Layout::ParseCursor(name);
    if (parsed && parsed->source == source_ && (!generation || parsed->generation > *generation)) {
      generation = parsed->generation;
    }
  }
  CursorRecord cursor;
  if (generation) {
    const std::string path = layout_.Cursor(log_, source_, *generation);
    const zk::Response read = co_await client_.Get(path);
    if (read.code != zk::Code::kOk) co_return UnavailableError(read, "hand out the cursor");
    if (!cursor.ParseFromString(read.data)) {
      co_return MakeError(Reason::kStoreCorrupt, "the cursor cannot be read", {.path = path});
    }
    version_ = read.stat.version;
  }
  const zk::Response part_names = co_await client_.Children(layout_.Parts(log_));
  if (part_names.code != zk::Code::kOk) co_return UnavailableError(part_names, "list the parts of the cursor");
  std::vector<PartRecord> parts;
  for (const std::string& name : part_names.children) {
    const std::optional<Layout::PartName> parsed = Layout::ParsePart(name);
    if (!parsed || parsed->source != source_) continue;
    const std::string path = layout_.Part(log_, source_, parsed->part);
    const zk::Response read = co_await client_.Get(path);
    if (read.code != zk::Code::kOk) co_return UnavailableError(read, "hand out a part of the cursor");
    PartRecord part;
    if (!part.ParseFromString(read.data) || part.n() != parsed->part) {
      co_return MakeError(Reason::kStoreCorrupt, "a part of the cursor cannot be read", {.path = path});
    }
    parts.push_back(std::move(part));
  }
  settled_ = SettledSet();
  if (absl::Status status = settled_.Load(cursor, parts); !status.ok()) {
    co_return MakeError(Reason::kStoreCorrupt, StdView(status.message()), {.path = layout_.Cursors(log_)});
  }
  generation_ = generation;
  epochs_.clear();
  for (const auto& epoch : cursor.epochs()) {
    epochs_.emplace_back(epoch.epoch(), CursorState{epoch.overwrote_generation(), epoch.overwrote_version()});
  }
  handed_over_.clear();
  for (const auto& lease : cursor.leases()) {
    handed_over_.push_back({Position::FromValue(lease.position()),
                            lease.number(),
                            std::chrono::milliseconds(std::max<std::int64_t>(lease.remaining_ms(), 0)),
                            {lease.first_epoch(), lease.last_epoch()}});
  }
  co_return absl::OkStatus();
}

void Cursor::Write(std::vector<Change> changes, Done done) {
  if (changes.empty() && !is_lost_) return done(absl::OkStatus());
  Take(std::move(changes), std::move(done));
}

void Cursor::Take(std::vector<Change> changes, Done done) {
  if (is_lost_) return done(MakeError(Reason::kNoOwner, "this replica does not own the log any more"));
  intake_.push_back({std::move(changes), 0, std::move(done)});
  if (!is_running_) {
    is_running_ = true;
    Spawn(strand_, Run(shared_from_this()));
  }
}

Task<absl::Status> Cursor::WriteAndWait(std::vector<Change> changes) {
  return Await(&Cursor::Write, std::move(changes));
}

Task<absl::Status> Cursor::Fence() { return Await(&Cursor::Take, {}); }

Task<absl::Status> Cursor::Await(void (Cursor::*write)(std::vector<Change>, Done), std::vector<Change> changes) {
  return asio::async_initiate<const asio::use_awaitable_t<>, void(absl::Status)>(
      [this, write](auto handler, std::vector<Change> given) {
        auto executor = asio::get_associated_executor(handler);
        (this->*write)(std::move(given), [executor, handler = std::move(handler)](absl::Status status) mutable {
          asio::post(executor, [handler = std::move(handler), status = std::move(status)]() mutable {
            std::move(handler)(std::move(status));
          });
        });
      },
      asio::use_awaitable, std::move(changes));
}

// Writes until there is nothing to write.
Task<void> Cursor::Run(std::shared_ptr<Cursor> self) {
  (void)self;  // keeps this alive
  while (!intake_.empty() && !is_lost_) {
    Frozen write = Freeze(nullptr);
    if (!co_await Send(write)) break;
  }
  is_running_ = false;
  wake_.Notify();
}

// ---- One write

void Cursor::TakeIntake(Frozen& write, std::vector<Position>& deletes) {
  std::size_t id_bytes = 0;  // of the batches in `deletes`
  while (!intake_.empty()) {
    Intake& intake = intake_.front();
    while (intake.next < intake.changes.size()) {
      const Change& change = intake.changes[intake.next];
      const std::size_t its_ids = dedup_ && !change.notes ? dedup_->BytesOf(change.position) : 0;
      const std::size_t bytes = settled_.changed_spilled_bytes() + write.changes * kBytesPerChange + id_bytes + its_ids;
      if (deletes.size() >= kDeletesMax || (write.changes > 0 && bytes >= kWriteBytesMax)) return;
      ++intake.next;
      ++write.changes;
      if (change.notes) {
        // A Nack's notes may come behind those of the giving-out that it made possible.
        if (change.notes->number < settled_.NotesOf(change.position).number) continue;
        settled_.SetNotes(change.position, *change.notes);
      } else if (settled_.Settle(change.position)) {
        deletes.push_back(change.position.BatchStart());
        id_bytes += its_ids;
      }
    }
    write.done.push_back(std::move(intake.done));
    intake_.pop_front();
  }
}

zk::Op Cursor::HeadOp() const {
  const Head head = listener_.head();
  HeadRecord record;
  record.set_oldest_position(head.oldest.value());
  record.set_counted_position(head.counted.value());
  record.set_live_messages(head.messages);
  record.set_live_bytes(head.bytes);
  record.set_live_batches(head.batches);
  return zk::Op::Set(layout_.Head(log_), record.SerializeAsString(), zk::kAnyVersion);
}

Cursor::Frozen Cursor::Freeze(const std::vector<HandedOverLease>* leases) {
  Frozen write;
  std::vector<Position> deletes;
  TakeIntake(write, deletes);
  write.deletes = deletes.size();
  while (!leftover_batches_.empty() && deletes.size() < kDeletesMax) {
    deletes.push_back(leftover_batches_.front());
    leftover_batches_.pop_front();
  }

  CursorRecord record;
  if (epochs_.empty() || epochs_.back().first != held_.epoch) {
    epochs_.emplace_back(held_.epoch, generation_ ? CursorState{*generation_, version_} : CursorState());
    if (epochs_.size() > kEpochsKept) epochs_.erase(epochs_.begin());
  }
  for (const auto& [epoch, overwrote] : epochs_) {
    auto* kept = record.add_epochs();
    kept->set_epoch(epoch);
    kept->set_overwrote_version(overwrote.version);
    kept->set_overwrote_generation(overwrote.generation);
  }
  if (leases != nullptr) {
    for (const HandedOverLease& lease : *leases) {
      auto* kept = record.add_leases();
      kept->set_position(lease.position.value());
      kept->set_number(lease.number);
      kept->set_remaining_ms(std::chrono::duration_cast<std::chrono::milliseconds>(lease.remaining).count());
      kept->set_first_epoch(lease.epochs.first);
      kept->set_last_epoch(lease.epochs.last);
    }
  }
  SettledSet::Changes changes = settled_.Encode(record, kDeletedPartsMax);

  const std::int32_t fence = IsMutated(Mutation::kSkipOwnerFence) ? zk::kAnyVersion : held_.version;
  write.ops.push_back(leases == nullptr ? zk::Op::Check(layout_.Owner(log_), fence) : LetGoOp(layout_, log_, held_));
  if (!generation_) {
    write.starts_generation = true;
    generation_ = 1;
    write.ops.push_back(zk::Op::Create(layout_.Cursor(log_, source_, *generation_), record.SerializeAsString()));
  } else if (version_ >= version_max_) {
    write.starts_generation = true;
    write.ops.push_back(zk::Op::Delete(layout_.Cursor(log_, source_, *generation_), version_));
    ++*generation_;
    write.ops.push_back(zk::Op::Create(layout_.Cursor(log_, source_, *generation_), record.SerializeAsString()));
  } else {
    write.ops.push_back(zk::Op::Set(layout_.Cursor(log_, source_, *generation_), record.SerializeAsString(), version_));
  }
  write.ops.push_back(HeadOp());
  for (auto& [part, data] : changes.created_parts) {
    write.ops.push_back(zk::Op::Create(layout_.Part(log_, source_, part), std::move(data)));
  }
  for (auto& [part, data] : changes.changed_parts) {
    write.ops.push_back(zk::Op::Set(layout_.Part(log_, source_, part), std::move(data), zk::kAnyVersion));
  }
  for (std::uint64_t part : changes.deleted_parts) {
    write.ops.push_back(zk::Op::Delete(layout_.Part(log_, source_, part)));
  }
  if (dedup_) {
    if (std::optional<zk::Op> carry = dedup_->Carry(deletes)) write.ops.push_back(*std::move(carry));
  }
  for (Position batch : deletes) write.ops.push_back(zk::Op::Delete(layout_.Batch(log_, batch)));
  return write;
}

// Sends it until it is in (true), or this cursor is lost (false).
Task<bool> Cursor::Send(Frozen& write) {
  connected_at_ = environment_.Now();
  while (true) {
    if (is_lost_) {
      co_await AnswerByFate(write);
      co_return false;
    }
    const zk::Response reply = co_await client_.Multi(write.ops, zk::Priority::kSettle);
    if (reply.code == zk::Code::kOk && !is_abandoned_) break;
    if (!zk::IsDefinite(reply.code)) write.has_unknown_copy = true;
    if (is_lost_) continue;
    if (zk::IsDefinite(reply.code) && !reply.results.empty()) {
      if (reply.results[kOwnerOp].code == zk::Code::kBadVersion || reply.results[kOwnerOp].code == zk::Code::kNoNode) {
        if (!co_await IsStillOurs(write)) Lose(MakeError(Reason::kNoOwner, "another replica has taken the log"));
        continue;
      }
      const zk::Code cursor = reply.results[write.cursor_op].code;
      const bool is_refused =
          cursor == zk::Code::kBadVersion || cursor == zk::Code::kNodeExists || cursor == zk::Code::kNoNode;
      if (is_refused && write.has_unknown_copy) break;  // an earlier copy is in
      if (is_refused) {
        const absl::Status corrupt = MakeError(Reason::kStoreCorrupt, "the cursor was written by somebody else",
                                               {.path = layout_.Cursors(log_)});
        Answer(write, corrupt);
        Lose(corrupt);
        co_return false;
      }
      if (Mend(write, reply)) continue;
    }
    GiveUpWaiting(write);
    co_await SleepFor(environment_, kRetryPause);
  }
  version_ = write.starts_generation ? 0 : version_ + 1;
  handed_over_.clear();
  if (dedup_) dedup_->OnWritten();
  Answer(write, absl::OkStatus());
  if (is_lost_) co_return false;
  if (listener_.on_written) listener_.on_written(write.changes, write.deletes);
  co_return true;
}

// The owner's version is not the one that the write names. Another process has taken the log (false), or this one has
// taken it again under a new session: then the write goes on under the new version.
Task<bool> Cursor::IsStillOurs(Frozen& write) {
  const absl::StatusOr<OwnerView> owner = co_await ReadOwner(client_, layout_, log_);
  const bool is_known = owner.ok() || absl::IsNotFound(owner.status());
  if (is_known && (!owner.ok() || owner->state != OwnerView::State::kProcess || owner->process != held_.process)) {
    co_return false;
  }
  if (owner.ok() && owner->version == held_.version) {
    write.ops[kOwnerOp] = zk::Op::Check(layout_.Owner(log_), held_.version);
  } else {
    GiveUpWaiting(write);
    co_await SleepFor(environment_, kRetryPause);  // SetOwner is about to come, or ZooKeeper to answer
  }
  co_return true;
}

// The write of a cursor that is lost: says whether it is in.
Task<void> Cursor::AnswerByFate(Frozen& write) {
  const absl::Status not_in = MakeError(Reason::kNoOwner, "another replica has taken the log");
  const absl::Status unknown =
      MakeError(Reason::kOutcomeUnknown, "this replica lost the log before ZooKeeper said whether the write is in");
  std::optional<WriteFate> fate;
  if (IsMutated(Mutation::kDeposedSaysOk)) fate = WriteFate::kIn;
  if (!fate && !write.has_unknown_copy && !is_abandoned_) fate = WriteFate::kNotIn;
  CursorState made;
  made.generation = generation_.value_or(0);
  made.version = write.starts_generation ? 0 : version_ + 1;
  for (int reads = 0; !fate && !is_abandoned_ && !write.done.empty() && reads < kFateReadsMax; ++reads) {
    fate = co_await FindWriteFate(client_, layout_, log_, source_, held_, made);
    if (fate) break;
    GiveUpWaiting(write);
    co_await SleepFor(environment_, kRetryPause);
  }
  switch (fate.value_or(WriteFate::kUnknown)) {
    case WriteFate::kIn:
      Answer(write, absl::OkStatus());
      break;
    case WriteFate::kNotIn:
      Answer(write, not_in);
      break;
    case WriteFate::kUnknown:
      Answer(write, unknown);
      break;
  }
}

void Cursor::Answer(Frozen& write, const absl::Status& answer) {
  for (Done& done : std::exchange(write.done, {})) done(answer);
}

// Takes out or turns round the operation that was refused although the rest is right: a batch or a part that is already
// as it should be. Returns true if the write may succeed now.
bool Cursor::Mend(Frozen& write, const zk::Response& reply) {
  for (std::size_t i = write.cursor_op + 1; i < reply.results.size() && i < write.ops.size(); ++i) {
    zk::Op& op = write.ops[i];
    const zk::Code code = reply.results[i].code;
    if (op.kind == zk::Op::Kind::kDelete && code == zk::Code::kNoNode) {
      write.ops.erase(write.ops.begin() + static_cast<std::ptrdiff_t>(i));
      return true;
    }
    if (op.kind == zk::Op::Kind::kSet && code == zk::Code::kNoNode) {
      op = zk::Op::Create(op.path, op.data);
      return true;
    }
    if (op.kind == zk::Op::Kind::kCreate && code == zk::Code::kNodeExists) {
      op = zk::Op::Set(op.path, op.data, zk::kAnyVersion);
      return true;
    }
  }
  return false;
}

void Cursor::GiveUpWaiting(Frozen& write) {
  const Instant now = environment_.Now();
  if (client_.session().state == zk::SessionState::kConnected) connected_at_ = now;
  if (now - connected_at_ < kPatience) return;
  const absl::Status unknown = MakeError(Reason::kOutcomeUnknown, "ZooKeeper does not answer");
  std::vector<Done> open = std::move(write.done);
  write.done.clear();
  for (Intake& intake : intake_) {
    if (intake.done) open.push_back(std::move(intake.done));
    intake.done = [](const absl::Status&) {};
  }
  for (Done& done : open) done(unknown);
}

// ---- The end

// Nothing is written any more. What waits was not sent, but for a call of which a part may be in.
void Cursor::Die(const absl::Status& answer) {
  is_lost_ = true;
  const absl::Status unknown =
      MakeError(Reason::kOutcomeUnknown, "this replica stopped before ZooKeeper answered for all of it");
  for (Intake& waiting : std::exchange(intake_, {})) waiting.done(waiting.next == 0 ? answer : unknown);
}

void Cursor::Lose(const absl::Status& why) {
  if (is_lost_) return;
  Die(why);
  if (listener_.on_lost) listener_.on_lost(why);
}

void Cursor::Depose() {
  if (!is_lost_) Die(MakeError(Reason::kNoOwner, "another replica has taken the log"));
}

void Cursor::Abandon() {
  is_abandoned_ = true;
  Die(MakeError(Reason::kOutcomeUnknown, "this replica stopped before ZooKeeper answered"));
}

Task<absl::Status> Cursor::LetGo(std::vector<HandedOverLease> leases, Duration timeout) {
  const std::shared_ptr<Cursor> self = shared_from_this();
  const Instant deadline = environment_.Now() + timeout;
  while (is_running_ && environment_.Now() < deadline) co_await wake_.WaitFor(kRetryPause);
  if (is_running_ || is_lost_) {
    Abandon();
    co_return MakeError(Reason::kOutcomeUnknown, "the last write of the cursor did not end in time");
  }
  if (leases.size() > kHandedOverLeasesMax) leases.resize(kHandedOverLeasesMax);
  is_running_ = true;
  Frozen write = Freeze(&leases);
  const zk::Response reply = co_await client_.Multi(write.ops, zk::Priority::kSettle);
  Abandon();
  if (reply.code != zk::Code::kOk) co_return UnavailableError(reply, "take the log back");
  co_return absl::OkStatus();
}

}  // namespace postkeeper
