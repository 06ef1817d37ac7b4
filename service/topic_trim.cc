// The part of TopicEngine that trims and keeps the head record.
#include <algorithm>
#include <utility>

#include "postkeeper/storage/v1/records.pb.h"
#include "service/logging.h"
#include "service/topic_engine.h"
#include "zkstore/errors.h"
#include "zkstore/mutation.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

constexpr Duration kRetryPause = std::chrono::milliseconds(100);

}  // namespace

zk::Op TopicEngine::HeadOp(Position kept_from, std::int64_t messages, std::int64_t bytes, std::int64_t batches) const {
  storage::v1::HeadRecord record;
  record.set_oldest_position(kept_from.value());
  record.set_counted_position(followed_.value());
  record.set_live_messages(messages);
  record.set_live_bytes(bytes);
  record.set_live_batches(batches);
  return zk::Op::Set(context_.layout.Head(entry_.uid), record.SerializeAsString(), zk::kAnyVersion);
}

// Other replicas publish by what the head says.
void TopicEngine::WriteHeadIfDue() {
  if (is_writing_head_ || !AppendRoom::IsHeadDue(of_others_, entry_.settings, context_.limits)) return;
  is_writing_head_ = true;
  of_others_ = {};
  Spawn(strand_, WriteHead(shared_from_this(), reign_));
}

Task<void> TopicEngine::WriteHead(std::shared_ptr<TopicEngine> self, std::uint64_t reign) {
  (void)self;  // keeps this alive
  while (reign == reign_ && !is_closed_) {
    // A copy of this write that comes late must not undo a later one.
    const zk::Response before = co_await context_.client.Get(context_.layout.Head(entry_.uid));
    if (reign != reign_ || before.code == zk::Code::kNoNode) break;
    // A trim that is on its way writes the head, and may be in already.
    if (before.code == zk::Code::kOk && trimming_to_ <= kept_from_) {
      std::vector<zk::Op> ops;
      ops.push_back(zk::Op::Check(context_.layout.Owner(entry_.uid), ownership_->held().version));
      ops.push_back(HeadOp(kept_from_, messages_, bytes_, static_cast<std::int64_t>(kept_.size())));
      ops.back().version = before.stat.version;
      const zk::Response written = co_await context_.client.Multi(std::move(ops), zk::Priority::kSettle);
      if (written.code == zk::Code::kOk) break;
    }
    co_await SleepFor(context_.environment, kRetryPause);
  }
  is_writing_head_ = false;
}

Task<void> TopicEngine::TrimFromTimeToTime(std::shared_ptr<TopicEngine> self, std::uint64_t reign) {
  (void)self;  // keeps this alive
  while (reign == reign_) {
    const absl::StatusOr<bool> trimmed = co_await TrimSome(reign);
    if (reign != reign_) co_return;
    if (trimmed.ok() && *trimmed) continue;
    if (!trimmed.ok()) {
      LogWarning("could not trim a topic", {{"topic", full_name_}, {"error", trimmed.status().message()}});
    }
    // Retention is at least a minute; looking every few seconds keeps a topic within a tenth of its bound.
    co_await trim_.WaitFor(std::chrono::seconds(5));
  }
}

// Whether the batch at `index` of kept_ must go, if `messages` and `bytes` are in it and behind it.
Task<absl::StatusOr<bool>> TopicEngine::MustTrim(std::size_t index, std::int64_t messages, std::int64_t bytes) {
  const TopicSettings& settings = std::get<TopicSettings>(entry_.settings);
  const bool is_over = messages > settings.max_messages || bytes > settings.max_bytes;
  // A batch of more than max_messages must reach its subscribers: the newest goes by its age only.
  if (is_over && messages > kept_[index].messages) co_return true;
  co_return co_await IsPastRetention(index);
}

// By the leader's clock alone: one that is wrong, of the replica that appended or of this one, must not cost messages.
Task<absl::StatusOr<bool>> TopicEngine::IsPastRetention(std::size_t index) {
  const std::uint64_t reign = reign_;
  if (!kept_[index].create_time) {
    const absl::StatusOr<WallTime> created = co_await reader_->CreateTimeOf(kept_[index].position);
    if (absl::IsNotFound(created.status())) co_return true;
    if (!created.ok()) co_return created.status();
    if (reign != reign_) co_return false;
    kept_[index].create_time = *created;  // it is still there: only this task takes from the front
  }
  const WallTime created = *kept_[index].create_time;
  const absl::StatusOr<WallTime> now = co_await context_.leader_clock.Now();
  if (!now.ok()) co_return now.status();
  co_return *now - created >= std::get<TopicSettings>(entry_.settings).retention;
}

// Deletes whole batches from the front, at most one write's worth. Returns true if there may be more.
Task<absl::StatusOr<bool>> TopicEngine::TrimSome(std::uint64_t reign) {
  constexpr std::size_t kDeletesMax = 256;
  constexpr std::size_t kIdBytesMax = 200 << 10;
  std::int64_t messages = 0;  // to be trimmed
  std::int64_t bytes = 0;
  Position kept_from = kept_from_;
  std::size_t count = 0;
  std::size_t id_bytes = 0;
  while (count < std::min(kept_.size(), kDeletesMax)) {
    id_bytes += window_->store()->BytesOf(kept_[count].position);
    if (count > 0 && id_bytes > kIdBytesMax) break;
    const absl::StatusOr<bool> must = co_await MustTrim(count, messages_ - messages, bytes_ - bytes);
    if (reign != reign_) co_return false;
    if (!must.ok()) co_return must.status();
    if (!*must) break;
    const Kept& oldest = kept_[count];
    messages += oldest.messages;
    bytes += oldest.bytes;
    kept_from = oldest.messages > 0
                    ? Position::FromValue(oldest.position.value() + static_cast<std::uint64_t>(oldest.messages))
                    : oldest.position.NextBatch();
    ++count;
  }
  if (count == 0) {
    // What an earlier try, or an earlier owner, has left.
    if (absl::Status status = co_await RemoveTrimmedSegments(reign); !status.ok()) co_return status;
    co_return false;
  }
  const Position oldest = count < kept_.size() ? kept_[count].position : followed_;
  trimming_to_ = kept_from;
  std::vector<Position> deletes;
  for (std::size_t i = 0; i < count; ++i) deletes.push_back(kept_[i].position);
  if (IsMutated(Mutation::kTrimTooMuch) && count < kept_.size()) deletes.push_back(kept_[count].position);
  const std::shared_ptr<DedupStore> dedup = window_->store();
  std::optional<zk::Op> carry = dedup->Carry(deletes);
  while (true) {
    std::vector<zk::Op> ops;
    const OwnerView held = ownership_->held();
    ops.push_back(zk::Op::Check(context_.layout.Owner(entry_.uid), held.version));
    ops.push_back(
        HeadOp(kept_from, messages_ - messages, bytes_ - bytes, static_cast<std::int64_t>(kept_.size() - count)));
    if (carry) ops.push_back(*carry);
    const std::size_t first_delete = ops.size();
    for (Position batch : deletes) ops.push_back(zk::Op::Delete(context_.layout.Batch(entry_.uid, batch)));
    const zk::Response done = co_await context_.client.Multi(std::move(ops), zk::Priority::kSettle);
    if (reign != reign_) co_return false;
    if (done.code == zk::Code::kOk) break;
    if (!done.results.empty() && done.results[0].code == zk::Code::kBadVersion &&
        ownership_->held().version == held.version) {
      ownership_->Lose(MakeError(Reason::kNoOwner, "another replica has taken the log"));
      co_return false;
    }
    // An earlier try, its reply lost, was in: the ids have their znode already, and a batch that is gone is left out.
    const zk::Code carried =
        carry && done.results.size() > first_delete ? done.results[first_delete - 1].code : zk::Code::kOk;
    if (carried == zk::Code::kNodeExists) {
      carry = zk::Op::Set(carry->path, carry->data, zk::kAnyVersion);
      continue;
    }
    if (carried == zk::Code::kNoNode) {
      carry = zk::Op::Create(carry->path, carry->data);
      continue;
    }
    const auto missing = std::find_if(done.results.begin(), done.results.end(),
                                      [](const auto& result) { return result.code == zk::Code::kNoNode; });
    const auto place = static_cast<std::size_t>(missing - done.results.begin());
    if (missing == done.results.end() || place < first_delete) co_return UnavailableError(done, "trim the topic");
    deletes.erase(deletes.begin() + static_cast<std::ptrdiff_t>(place - first_delete));
  }
  dedup->OnWritten();
  std::int64_t trimmed = 0;
  for (std::size_t i = 0; i < count; ++i) {
    trimmed += kept_.front().messages;
    messages_ -= kept_.front().messages;
    bytes_ -= kept_.front().bytes;
    context_.cache.Erase(entry_.uid, kept_.front().position);
    kept_.pop_front();
  }
  oldest_ = oldest;
  kept_from_ = kept_from;
  metrics_->Trimmed(trimmed);
  PublishGauges();
  if (absl::Status status = co_await RemoveTrimmedSegments(reign); !status.ok()) co_return status;
  co_return true;
}

Task<absl::Status> TopicEngine::RemoveTrimmedSegments(std::uint64_t reign) {
  while (reign == reign_ && first_segment_ < oldest_.segment()) {
    std::vector<zk::Op> ops;
    ops.push_back(zk::Op::Check(context_.layout.Owner(entry_.uid), ownership_->held().version));
    // What is left in it is the batch that ends it, which has no ids.
    const std::string segment = context_.layout.Segment(entry_.uid, first_segment_);
    const zk::Response left = co_await context_.client.Children(segment);
    for (const std::string& name : left.children) ops.push_back(zk::Op::Delete(Cat(segment, "/", name)));
    ops.push_back(zk::Op::Delete(segment, kSegmentSealed));
    const zk::Response gone = co_await context_.client.Multi(std::move(ops), zk::Priority::kSettle);
    if (reign != reign_) co_return absl::OkStatus();
    if (gone.code != zk::Code::kOk && gone.code != zk::Code::kNoNode) {
      co_return UnavailableError(gone, "remove a trimmed segment");
    }
    ++first_segment_;
  }
  co_return absl::OkStatus();
}

}  // namespace postkeeper
