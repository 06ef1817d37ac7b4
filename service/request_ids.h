// The answers to calls that carried a request_id, for the repeats of such a call.
#ifndef POSTKEEPER_SERVICE_REQUEST_IDS_H_
#define POSTKEEPER_SERVICE_REQUEST_IDS_H_

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "zkstore/environment.h"
#include "zkstore/log_appender.h"

namespace postkeeper {

// One log's window. An id is entered when its messages are given to the appender; a second call with it waits for the
// fate of the first. An id whose messages were not written is forgotten, so that the repeat writes them. One whose
// outcome is not known stays, and its repeats are told OUTCOME_UNKNOWN until the appender knows.
//
// Bounded by time and number: an id is kept for `window` after its first answer; past `ids_max` ids that are still in
// their window a new one is refused, since forgetting one early would let its repeat write twice. Not thread-safe.
class RequestIds {
 public:
  using Done = LogAppender::Done;

  RequestIds(std::size_t ids_max, Duration window) : ids_max_(ids_max), window_(window) {}

  enum class Entered {
    kNew,    // append, and give the outcome to Finish; `done` was not taken
    kKnown,  // `done` was called, or will be by Finish
    kFull,   // no room; `done` was not taken
  };
  Entered Enter(const std::string& request_id, Instant now, Done& done);
  // What the appender says: OUTCOME_UNKNOWN for the time being, or the fate of the messages. Answers the waiting
  // repeats.
  void Finish(const std::string& request_id, const absl::StatusOr<Appended>& outcome, Instant now);

  std::size_t size() const { return ids_.size(); }

 private:
  struct Entry {
    bool is_answered = false;  // with `answer`, which may still be OUTCOME_UNKNOWN
    absl::StatusOr<Appended> answer;
    Instant answered_at{};
    std::vector<Done> waiting;
  };
  void Expire(Instant now);

  const std::size_t ids_max_;
  const Duration window_;
  absl::flat_hash_map<std::string, Entry> ids_;
  std::deque<std::pair<Instant, std::string>> answered_;  // oldest first
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_REQUEST_IDS_H_
