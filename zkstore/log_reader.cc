#include "zkstore/log_reader.h"

#include <algorithm>
#include <asio/post.hpp>
#include <iterator>

#include "zkstore/errors.h"
#include "zkstore/mutation.h"
#include "zkstore/owner.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

// Views of this many segments are kept; older ones are looked at again when they are needed.
constexpr std::size_t kSegmentViewsMax = 64;
// Fetched ahead and never asked for: their readers have gone.
constexpr std::size_t kFetchedMax = 4 * LogReader::kReadAheadMax;

}  // namespace

LogReader::LogReader(Environment& environment, zk::Client& client, const Layout& layout, const Uid& log,
                     BatchCache& cache, asio::any_io_executor strand)
    : environment_(environment),
      client_(client),
      layout_(layout),
      log_(log),
      cache_(cache),
      strand_(strand),
      arrivals_(environment, strand),
      bell_(environment, strand) {}

LogReader::~LogReader() = default;

LogReader::Step LogReader::StepTo(Position at, std::shared_ptr<const Batch> batch) const {
  Position next = batch->ends_segment() ? at.NextSegment() : at.NextBatch();
  if (batch->ends_segment() && IsMutated(Mutation::kSkipBatchAfterSeal)) next = next.NextBatch();
  return {Step::Kind::kBatch, std::move(batch), next};
}

void LogReader::LearnTail(Position past_last) {
  known_tail_ = std::max(known_tail_, past_last);
  SegmentView& view = segments_[past_last.segment()];
  view.tail = std::max(view.tail, past_last.batch());
  if (segments_.size() <= kSegmentViewsMax) return;
  // Not the one just learned, which may be the first.
  segments_.erase(segments_.begin()->first == past_last.segment() ? std::prev(segments_.end()) : segments_.begin());
}

void LogReader::OnAppended(Position position, std::shared_ptr<const Batch> batch) {
  cache_.Insert(log_, position.BatchStart(), std::move(batch));
  const Position tail = position.NextBatch();
  LearnTail(tail);
  if (known_tail_ == tail) own_tail_ = tail;
  expects_own_ = true;
  WakeReaders();
}

void LogReader::Ring() {
  own_tail_.reset();
  WakeReaders();
}

void LogReader::WakeReaders() {
  ++rings_;
  bell_.Notify();
}

Task<absl::StatusOr<std::optional<LogReader::SegmentView>>> LogReader::Look(std::uint64_t segment) {
  const zk::Response stat = co_await client_.Exists(layout_.Segment(log_, segment));
  if (stat.code == zk::Code::kNoNode) {
    segments_.erase(segment);
    co_return std::optional<SegmentView>();
  }
  if (stat.code != zk::Code::kOk) co_return UnavailableError(stat, "say where the log ends");
  LearnTail(Position(segment, static_cast<std::uint32_t>(stat.stat.children_created()), 0));
  SegmentView& view = segments_[segment];
  view.is_sealed = stat.stat.version != kSegmentOpen;
  co_return std::optional<SegmentView>(view);
}

Task<absl::StatusOr<LogReader::Step>> LogReader::Read(Position at) {
  const std::shared_ptr<LogReader> self = shared_from_this();
  at = at.BatchStart();
  if (std::shared_ptr<const Batch> batch = cache_.Find(log_, at)) co_return StepTo(at, std::move(batch));
  if (own_tail_ == at) {
    own_tail_.reset();
    co_return Step{Step::Kind::kAtTail, nullptr, at};  // WaitAtTail looks before it sleeps for long
  }
  auto known = segments_.find(at.segment());
  std::optional<SegmentView> view = known == segments_.end() ? std::nullopt : std::optional(known->second);
  if (!view || view->tail <= at.batch()) {
    absl::StatusOr<std::optional<SegmentView>> looked = co_await Look(at.segment());
    if (!looked.ok()) co_return looked.status();
    view = *looked;
    if (!view) co_return Step{Step::Kind::kSegmentGone, nullptr, at};
  }
  if (view->tail <= at.batch()) {
    if (view->is_sealed) co_return Step{Step::Kind::kNextSegment, nullptr, at.NextSegment()};
    co_return Step{Step::Kind::kAtTail, nullptr, at};
  }
  absl::StatusOr<Fetched> fetched = co_await Fetch(at, view->tail);
  if (!fetched.ok()) co_return fetched.status();
  if (!fetched->is_there) co_return Step{Step::Kind::kHole, nullptr, at.NextBatch()};
  co_return StepTo(at, std::move(fetched->batch));
}

// `at` is below the tail, which was known before this call: its absence means that it was deleted.
Task<absl::StatusOr<LogReader::Fetched>> LogReader::Fetch(Position at, std::uint32_t tail) {
  while (true) {
    auto found = fetched_.find(at);
    if (found != fetched_.end()) {
      Fetched fetched = std::move(found->second);
      fetched_.erase(found);
      if (!fetched.error.ok()) co_return fetched.error;
      co_return fetched;
    }
    if (std::shared_ptr<const Batch> batch = cache_.Find(log_, at)) co_return Fetched{true, std::move(batch), {}};
    Position next = at;
    for (int i = 0; i < kReadAheadMax && next.batch() < tail; ++i, next = next.NextBatch()) {
      if (!fetching_.contains(next) && !fetched_.contains(next) && cache_.Find(log_, next) == nullptr) StartFetch(next);
    }
    co_await arrivals_.WaitFor(zk::kRequestTimeout);
  }
}

void LogReader::StartFetch(Position at) {
  fetching_.insert(at);
  zk::Request request;
  request.kind = zk::Request::Kind::kGet;
  request.path = layout_.Batch(log_, at);
  request.priority = zk::Priority::kBulk;
  client_.Submit(std::move(request), [self = shared_from_this(), at](zk::Response response) {
    asio::post(self->strand_,
               [self, at, response = std::move(response)]() mutable { self->OnFetched(at, std::move(response)); });
  });
}

void LogReader::OnFetched(Position at, zk::Response response) {
  fetching_.erase(at);
  if (fetched_.size() >= kFetchedMax) fetched_.clear();
  Fetched& fetched = fetched_[at];
  fetched = Fetched{};
  if (response.code == zk::Code::kOk) {
    const WallTime created{std::chrono::milliseconds(response.stat.ctime_ms)};
    absl::StatusOr<std::shared_ptr<const Batch>> batch = Batch::Decode(response.data, created);
    if (batch.ok()) {
      fetched.is_there = true;
      fetched.batch = *std::move(batch);
      cache_.Insert(log_, at, fetched.batch);
    } else {
      fetched.error =
          MakeError(Reason::kStoreCorrupt, StdView(batch.status().message()), {.path = layout_.Batch(log_, at)});
    }
  } else if (response.code != zk::Code::kNoNode) {
    fetched.error = UnavailableError(response, "hand out a batch");
  }
  arrivals_.Notify();
}

Task<void> LogReader::WaitAtTail(Position at) {
  const std::shared_ptr<LogReader> self = shared_from_this();
  at = at.BatchStart();
  const std::uint64_t seen = rings_;
  auto is_beyond = [&] { return rings_ != seen || known_tail_ > at; };
  if (is_beyond()) co_return;
  if (!watched_.contains(at) && expects_own_) {
    // A ring from before this wait, which the bell has kept, ends it early.
    const Instant patience_ends = environment_.Now() + kBellPatience;
    for (Instant now = environment_.Now(); now < patience_ends; now = environment_.Now()) {
      co_await bell_.WaitFor(patience_ends - now);
      if (is_beyond()) co_return;
    }
  }
  const std::string path = layout_.Batch(log_, at);
  bool is_watched = watched_.contains(at);
  if (!is_watched && client_.watched_path_bytes() + path.size() <= kWatchedPathBytesMax) {
    watched_.insert(at);
    zk::Watcher watcher = [weak = weak_from_this(), strand = strand_, at](const zk::WatchEvent& event) {
      const bool is_there = event.type == zk::WatchType::kCreated;
      asio::post(strand, [weak, at, is_there] {
        const std::shared_ptr<LogReader> reader = weak.lock();
        if (!reader) return;
        reader->watched_.erase(at);
        // A batch of this process would be fetched in vain: its bytes come with the bell.
        if (is_there && !reader->expects_own_) reader->LearnTail(at.NextBatch());
        if (is_there && reader->known_tail_ <= at.NextBatch()) reader->expects_own_ = false;
        reader->Ring();
      });
    };
    const zk::Response exists = co_await client_.Exists(path, std::move(watcher));
    if (exists.code == zk::Code::kOk) {
      expects_own_ = false;
      LearnTail(at.NextBatch());
      co_return;
    }
    is_watched = exists.code == zk::Code::kNoNode;
    if (!is_watched) watched_.erase(at);
    if (is_beyond()) co_return;
  }
  const absl::StatusOr<std::optional<SegmentView>> view = co_await Look(at.segment());
  if (view.ok() && (!*view || (*view)->is_sealed || (*view)->tail > at.batch())) co_return;
  if (is_beyond()) co_return;
  is_polling_ = !is_watched;
  co_await bell_.WaitFor(is_watched && view.ok() ? kSlowPoll : kPollWithoutWatch);
  is_polling_ = false;
}

Task<absl::StatusOr<std::uint64_t>> LogReader::FindFirstSegment() {
  const std::shared_ptr<LogReader> self = shared_from_this();
  const zk::Response children = co_await client_.Children(layout_.Segments(log_));
  if (children.code != zk::Code::kOk) co_return UnavailableError(children, "list the segments of the log");
  std::optional<std::uint64_t> first;
  for (const std::string& name : children.children) {
    const std::optional<std::uint64_t> number = Layout::ParseSegment(name);
    if (number) first = std::min(first.value_or(*number), *number);
  }
  if (!first) {
    co_return MakeError(Reason::kStoreCorrupt, "the log has no segment", {.path = layout_.Segments(log_)});
  }
  co_return *first;
}

Task<absl::StatusOr<Position>> LogReader::FindTail() {
  constexpr int kLooksMax = 5;  // the last segment may be sealed and removed between the two reads
  const std::shared_ptr<LogReader> self = shared_from_this();
  // The server of this session may be behind the one that told another process.
  const zk::Response synced = co_await client_.Sync(layout_.Segments(log_));
  if (synced.code != zk::Code::kOk) co_return UnavailableError(synced, "say where the log ends");
  for (int look = 0; look < kLooksMax; ++look) {
    const zk::Response children = co_await client_.Children(layout_.Segments(log_));
    if (children.code != zk::Code::kOk) co_return UnavailableError(children, "list the segments of the log");
    std::uint64_t last = 0;
    for (const std::string& name : children.children) last = std::max(last, Layout::ParseSegment(name).value_or(0));
    const absl::StatusOr<std::optional<SegmentView>> view = co_await Look(last);
    if (!view.ok()) co_return view.status();
    if (*view) co_return Position(last, (*view)->tail, 0);
  }
  co_return MakeError(Reason::kZookeeperUnavailable, "the log went on while its tail was looked for");
}

Task<absl::StatusOr<WallTime>> LogReader::CreateTimeOf(Position batch) {
  const std::shared_ptr<LogReader> self = shared_from_this();
  const zk::Response stat = co_await client_.Exists(layout_.Batch(log_, batch));
  if (stat.code == zk::Code::kNoNode) co_return absl::NotFoundError("no such batch");
  if (stat.code != zk::Code::kOk) co_return UnavailableError(stat, "say when a batch was created");
  co_return WallTime(std::chrono::milliseconds(stat.stat.ctime_ms));
}

}  // namespace postkeeper
