// The answers to calls that carried a request_id, for the repeats of such a call.
#ifndef POSTKEEPER_SERVICE_REQUEST_IDS_H_
#define POSTKEEPER_SERVICE_REQUEST_IDS_H_

#include <memory>
#include <optional>
#include <queue>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "zkstore/dedup_store.h"
#include "zkstore/environment.h"
#include "zkstore/log_appender.h"

namespace postkeeper {

// One log's window, in memory; IdWindow fills it after a change of owner. An id is entered when its messages are given
// to the appender; a second call with it waits for the fate of the first. An id whose messages were not written is
// forgotten, so that the repeat writes them. One whose outcome is not known stays until the appender knows, or its
// batch is read; its repeats wait for that, but not longer than kPatience, and are then told OUTCOME_UNKNOWN.
//
// Ids are known by their hashes (dedup_store.h says why that is enough).
//
// Bounded by time and number: an id is kept for `window` after its messages were written; past `ids_max` ids a new one
// is refused, since forgetting one early would let its repeat write twice. What is read from the store is never
// refused. Lives on one strand; all calls are made there, and callbacks are called there. Held by shared_ptr.
class RequestIds : public std::enable_shared_from_this<RequestIds> {
 public:
  using Done = LogAppender::Done;
  static constexpr Duration kPatience = std::chrono::seconds(1);

  RequestIds(Environment& environment, asio::any_io_executor strand, std::size_t ids_max, Duration window);

  enum class Entered {
    kNew,    // append, and give the outcome to Finish; `done` was not taken
    kKnown,  // `done` was called, or will be by Finish
    kFull,   // no room; `done` was not taken
  };
  Entered Enter(const IdHash& id, Done& done);
  // What the appender says: OUTCOME_UNKNOWN for the time being, or the fate of the messages. Answers the waiting
  // repeats.
  void Finish(const IdHash& id, const absl::StatusOr<Appended>& outcome);
  // What was read says that the messages of this id are written, at that time, the latest if they are several. Returns
  // the time that counts, which is the later one if Finish has said so, too.
  Instant Learn(const IdHash& id, const Appended& appended, Instant written_at);

  std::size_t size() const { return ids_.size(); }

 private:
  struct Entry {
    std::optional<Appended> written;
    Instant written_at{};
    bool is_unknown = false;    // the first call was told OUTCOME_UNKNOWN, and nothing more is known since
    std::vector<Done> waiting;  // repeats
  };
  // Of an id that may be past the window at that time.
  struct Expiry {
    Instant written_at;
    IdHash id;
    bool operator<(const Expiry& other) const { return written_at > other.written_at; }  // the oldest on top
  };
  void SetWritten(const IdHash& id, Entry& entry, const Appended& appended, Instant written_at);
  void Expire();
  void LosePatience();

  Environment& environment_;
  const std::size_t ids_max_;
  const Duration window_;
  absl::flat_hash_map<IdHash, Entry> ids_;
  std::priority_queue<Expiry> expiries_;  // of ids that are written
  std::vector<IdHash> unknown_repeated_;  // since the timer was started
  std::unique_ptr<Timer> patience_timer_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_REQUEST_IDS_H_
