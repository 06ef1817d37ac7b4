#include "service/id_window.h"

#include <algorithm>
#include <asio/post.hpp>
#include <string>
#include <utility>

#include "service/logging.h"
#include "zkstore/errors.h"
#include "zkstore/mutation.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

constexpr Duration kRetryPause = std::chrono::milliseconds(100);
// How late a znode of old ids is dropped.
constexpr Duration kDropPause = std::chrono::seconds(20);

}  // namespace

IdWindow::IdWindow(EngineContext& context, const Uid& log, asio::any_io_executor strand)
    : context_(context),
      log_(log),
      strand_(strand),
      ids_(std::make_shared<AppendIds>(context.environment, strand, context.limits.request_ids_max,
                                       context.limits.request_id_window)),
      progress_(context.environment, strand),
      drop_(context.environment, strand) {}

void IdWindow::Begin(const OwnerView& held, Instant taken_at, std::shared_ptr<LogReader> reader, Position followed) {
  ++reign_;
  held_ = held;
  store_ = std::make_shared<DedupStore>(context_.environment, context_.client, context_.layout, log_, held, taken_at,
                                        context_.limits.request_id_window);
  followed_ = followed;
  tail_.reset();
  is_store_read_ = false;
  damaged_until_.reset();
  is_dropping_ = false;
  Spawn(strand_, Load(shared_from_this(), reign_, std::move(reader)));
}

void IdWindow::End() {
  ++reign_;
  tail_.reset();
  is_store_read_ = false;
  progress_.Notify();
  drop_.Notify();
}

// ---- Reading

Task<void> IdWindow::Load(std::shared_ptr<IdWindow> self, std::uint64_t reign, std::shared_ptr<LogReader> reader) {
  (void)self;  // keeps this alive
  while (reign == reign_) {
    const absl::Status status = co_await LoadOnce(reign, reader);
    if (reign != reign_ || status.ok()) break;
    LogWarning("could not read the ids of a log", {{"log", log_.ToHex()}, {"error", status.message()}});
    co_await SleepFor(context_.environment, kRetryPause);
  }
}

Task<absl::Status> IdWindow::LoadOnce(std::uint64_t reign, std::shared_ptr<LogReader> reader) {
  if (!tail_) {
    const absl::StatusOr<Position> tail = co_await reader->FindTail();
    if (reign != reign_) co_return absl::OkStatus();
    if (!tail.ok()) co_return tail.status();
    tail_ = *tail;
    if (followed_ < *tail) reader->Ring();
  }
  const std::shared_ptr<DedupStore> store = store_;
  absl::StatusOr<DedupStore::Saved> saved = co_await store->Load();
  if (reign != reign_) co_return absl::OkStatus();
  if (!saved.ok()) co_return saved.status();
  for (const BatchIds& batch : saved->batches) Learn(batch);
  if (saved->damaged_until) {
    ++context_.corruptions;
    LogError("ids of deleted batches cannot be read; calls with ids are refused until they are too old",
             {{"log", log_.ToHex()}, {"path", saved->damaged_path}});
    damaged_until_ = saved->damaged_until;
    damaged_path_ = std::move(saved->damaged_path);
  }
  is_store_read_ = true;
  progress_.Notify();
  if (!store->is_empty()) StartDropping();
  co_return absl::OkStatus();
}

void IdWindow::Learn(const BatchIds& batch) {
  for (const HashedId& id : batch.ids) {
    ids_->Learn(id.hash, {batch.writer, id.first_index, id.count, id.duplicates}, batch.written_at);
  }
}

void IdWindow::Learn(Position at, const Batch& batch) {
  BatchIds learned;
  learned.writer = batch.writer();
  // One that this process has written and not read back: its own clock has stamped it.
  const Duration age = std::max<Duration>(context_.environment.WallNow() - batch.append_time(), Duration::zero());
  const Instant written_at = batch.created() ? store_->InstantOf(*batch.created()) : context_.environment.Now() - age;
  learned.written_at = written_at;
  for (BatchRequestId& id : batch.request_ids()) {
    learned.ids.push_back({HashOfRequestId(id.request_id), id.first_index, id.count, std::move(id.duplicates)});
  }
  if (!IsMutated(Mutation::kOverlookDedupIds)) {
    for (const BatchDedupId& id : batch.dedup_ids()) learned.ids.push_back({id.hash, id.index, 1});
  }
  for (const HashedId& id : learned.ids) {
    const Appended appended{learned.writer, id.first_index, id.count, id.duplicates};
    learned.written_at = std::max(learned.written_at, ids_->Learn(id.hash, appended, written_at));
  }
  store_->Learn(at, std::move(learned));
  StartDropping();
}

bool IdWindow::is_known() const {
  if (IsMutated(Mutation::kAnswerIdsUnread)) return true;
  return is_store_read_ && tail_ && followed_ >= *tail_ &&
         (!damaged_until_ || *damaged_until_ <= context_.environment.Now());
}

Task<absl::Status> IdWindow::WaitUntilKnown(std::shared_ptr<LogOwnership> ownership, Duration timeout) {
  const std::shared_ptr<IdWindow> self = shared_from_this();
  const Instant deadline = context_.environment.Now() + timeout;
  while (true) {
    const Duration left = std::max<Duration>(deadline - context_.environment.Now(), Duration::zero());
    absl::Status held = co_await ownership->WaitUntilHeld(left);
    if (!held.ok()) co_return held;
    if (is_known()) co_return absl::OkStatus();
    const Instant now = context_.environment.Now();
    if (damaged_until_ && *damaged_until_ > now) {
      co_return MakeError(Reason::kStoreCorrupt, "the ids of deleted batches cannot be read", {.path = damaged_path_});
    }
    if (now >= deadline) {
      co_return MakeError(Reason::kNoOwner, "its ids are still being read after a change of owner");
    }
    ++waiting_;
    co_await progress_.WaitFor(std::min<Duration>(deadline - now, kRetryPause));
    --waiting_;
  }
}

// ---- Calls

std::shared_ptr<const AppendIds::Held> IdWindow::Enter(CheckedAppend& append, Done& done, const std::string& full_name,
                                                       Again again) {
  auto held = std::make_shared<AppendIds::Held>();
  std::optional<IdHash> open = ids_->FindOpen(append);
  AppendIds::Entered entered = AppendIds::Entered::kOpen;
  if (!open) entered = ids_->Enter(append, done, *held);
  if (!open && entered == AppendIds::Entered::kOpen) open = ids_->FindOpen(append);
  if (open) {
    ids_->WaitFor(*open, [strand = strand_, append = std::move(append), done = std::move(done),
                          again = std::move(again)](const absl::StatusOr<Appended>& fate) mutable {
      if (HasReason(fate.status(), Reason::kOutcomeUnknown)) return done(fate.status());
      asio::post(strand, [append = std::move(append), done = std::move(done), again = std::move(again)]() mutable {
        again(std::move(append), std::move(done));
      });
    });
    return nullptr;
  }
  switch (entered) {
    case AppendIds::Entered::kNew:
      return held;
    case AppendIds::Entered::kKnown:
      return nullptr;
    case AppendIds::Entered::kFull:
    case AppendIds::Entered::kOpen:  // it was met above
      break;
  }
  done(MakeError(Reason::kTooManyCalls, Cat(full_name, " remembers too many request_ids and dedup_ids"),
                 {.resource = full_name}));
  return nullptr;
}

// ---- Dropping

void IdWindow::StartDropping() {
  if (is_dropping_) return;
  is_dropping_ = true;
  Spawn(strand_, DropFromTimeToTime(shared_from_this(), reign_));
}

Task<void> IdWindow::DropFromTimeToTime(std::shared_ptr<IdWindow> self, std::uint64_t reign) {
  (void)self;  // keeps this alive
  const std::shared_ptr<DedupStore> store = store_;
  while (reign == reign_) {
    for (std::string& path : store->TakeExpired()) {
      if (reign != reign_) co_return;
      std::vector<zk::Op> ops;
      ops.push_back(zk::Op::Check(context_.layout.Owner(log_), held_.version));
      ops.push_back(zk::Op::Delete(path));
      const zk::Response gone = co_await context_.client.Multi(std::move(ops), zk::Priority::kBulk);
      if (reign != reign_) co_return;
      const bool is_gone = gone.code == zk::Code::kOk || gone.code == zk::Code::kNoNode;
      if (!is_gone) store->DropLater(std::move(path));
    }
    if (store->is_empty()) break;
    co_await drop_.WaitFor(kDropPause);
  }
  if (reign == reign_) is_dropping_ = false;
}

}  // namespace postkeeper
