// The answers to calls that carried a request_id, for the repeats of such a call.
#ifndef POSTKEEPER_SERVICE_REQUEST_IDS_H_
#define POSTKEEPER_SERVICE_REQUEST_IDS_H_

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "zkstore/environment.h"
#include "zkstore/log_appender.h"

namespace postkeeper {

// One log's window. An id is entered when its messages are given to the appender; a second call with it waits for the
// fate of the first. An id whose messages were not written is forgotten, so that the repeat writes them. One whose
// outcome is not known stays until the appender knows; its repeats wait for that, but not longer than kPatience, and
// are then told OUTCOME_UNKNOWN.
//
// Bounded by time and number: an id is kept for `window` after its messages were written; past `ids_max` ids a new one
// is refused, since forgetting one early would let its repeat write twice. Lives on one strand; all calls are made
// there, and callbacks are called there. Held by shared_ptr.
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
  Entered Enter(const std::string& request_id, Done& done);
  // What the appender says: OUTCOME_UNKNOWN for the time being, or the fate of the messages. Answers the waiting
  // repeats.
  void Finish(const std::string& request_id, const absl::StatusOr<Appended>& outcome);

  std::size_t size() const { return ids_.size(); }

 private:
  struct Entry {
    std::optional<Appended> written;
    bool is_unknown = false;    // the first call was told OUTCOME_UNKNOWN, and nothing more is known since
    std::vector<Done> waiting;  // repeats
  };
  void Expire();
  void LosePatience();

  Environment& environment_;
  const std::size_t ids_max_;
  const Duration window_;
  absl::flat_hash_map<std::string, Entry> ids_;
  std::deque<std::pair<Instant, std::string>> written_;  // oldest first
  std::vector<std::string> unknown_repeated_;            // since the timer was started
  std::unique_ptr<Timer> patience_timer_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_REQUEST_IDS_H_
