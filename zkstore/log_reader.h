// Reads one log, for all who read it in this process.
#ifndef POSTKEEPER_ZKSTORE_LOG_READER_H_
#define POSTKEEPER_ZKSTORE_LOG_READER_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/status/statusor.h"
#include "zkstore/batch.h"
#include "zkstore/batch_cache.h"
#include "zkstore/client.h"
#include "zkstore/layout.h"
#include "zkstore/signal.h"

namespace postkeeper {

// How it works. A reader stands at a position and asks for the batch there; what the absence of a batch means depends
// on what was known before it was asked for:
//
//   the batch is there                                    -> kBatch; the ones behind it are fetched ahead
//   its number was below the segment's tail, known before -> kHole: it was deleted (settled or trimmed)
//   the segment is sealed and ends before it              -> kNextSegment
//   the segment is open and ends before it                -> kAtTail
//   the segment is gone                                   -> kSegmentGone: the caller reads the head record
//
// At the tail a reader waits for a batch of this process (the bell), for the watch on the name of the next batch, which
// tells of those of other processes, or, if the session has too many watches already, for a slow poll. A watch alone is
// never trusted: the segment is looked at after the watch is set, since a watch on a name in a deleted segment never
// fires.
//
// All reads go through one session, since two sessions can see two different pasts. Lives on the strand of its log;
// held by shared_ptr; coroutines that read keep it alive. Errors: ZOOKEEPER_UNAVAILABLE (ask again later),
// STORE_CORRUPT naming the path.
class LogReader : public std::enable_shared_from_this<LogReader> {
 public:
  // Fetched ahead of a reader, in batches.
  static constexpr int kReadAheadMax = 8;
  static constexpr std::size_t kWatchedPathBytesMax = 512 << 10;
  // Own batches come by the bell; while they do, a watch is set only when none has come for so long.
  static constexpr Duration kBellPatience = std::chrono::milliseconds(5);
  static constexpr Duration kSlowPoll = std::chrono::seconds(5);
  static constexpr Duration kPollWithoutWatch = std::chrono::seconds(1);

  struct Step {
    enum class Kind { kBatch, kHole, kNextSegment, kAtTail, kSegmentGone };

    Kind kind = Kind::kAtTail;
    std::shared_ptr<const Batch> batch;  // kBatch
    Position next;                       // where to go on; the same position for kAtTail and kSegmentGone
  };

  LogReader(Environment& environment, zk::Client& client, const Layout& layout, const Uid& log, BatchCache& cache,
            asio::any_io_executor strand);
  ~LogReader();

  // What is at the start of this batch.
  Task<absl::StatusOr<Step>> Read(Position at);
  // Returns when there may be something at a position for which Read said kAtTail, or after a while anyway.
  Task<void> WaitAtTail(Position at);

  // From this process's appender: a batch is in, here or somewhere.
  void OnAppended(Position position, std::shared_ptr<const Batch> batch);
  void Ring();

  // The position behind the last batch known of.
  Position known_tail() const { return known_tail_; }
  // It waits at the tail without a watch, and so looks every kPollWithoutWatch. Thread-safe.
  bool is_polling() const { return is_polling_; }
  // Where the log ends now, after every append that any process was told of before.
  Task<absl::StatusOr<Position>> FindTail();
  // The first segment that exists.
  Task<absl::StatusOr<std::uint64_t>> FindFirstSegment();
  // When the leader of ZooKeeper says that the batch was created; NOT_FOUND if it is not there.
  Task<absl::StatusOr<WallTime>> CreateTimeOf(Position batch);

 private:
  struct SegmentView {
    std::uint32_t tail = 0;
    bool is_sealed = false;
  };
  struct Fetched {
    bool is_there = false;
    std::shared_ptr<const Batch> batch;
    absl::Status error;
  };

  Task<absl::StatusOr<Fetched>> Fetch(Position at, std::uint32_t tail);
  void StartFetch(Position at);
  void OnFetched(Position at, zk::Response response);
  // Reads the segment's znode; NoNode gives nullopt.
  Task<absl::StatusOr<std::optional<SegmentView>>> Look(std::uint64_t segment);
  void LearnTail(Position past_last);
  void WakeReaders();
  Step StepTo(Position at, std::shared_ptr<const Batch> batch) const;

  // Constant after construction.
  Environment& environment_;
  zk::Client& client_;
  const Layout layout_;
  const Uid log_;
  BatchCache& cache_;
  const asio::any_io_executor strand_;

  // Touched only on the strand.
  absl::btree_map<std::uint64_t, SegmentView> segments_;  // as last seen; few
  absl::btree_set<Position> fetching_;
  absl::btree_map<Position, Fetched> fetched_;  // not yet asked for
  absl::btree_set<Position> watched_;
  Position known_tail_;
  // Right behind this process's latest append, where the next Read need not look.
  std::optional<Position> own_tail_;
  bool expects_own_ = true;  // the last batch known of is of this process, or none is known
  std::uint64_t rings_ = 0;
  std::atomic<bool> is_polling_ = false;
  Signal arrivals_;
  Signal bell_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_LOG_READER_H_
