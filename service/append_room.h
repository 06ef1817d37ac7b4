// How much a replica may append to a log that another one works for.
#ifndef POSTKEEPER_SERVICE_APPEND_ROOM_H_
#define POSTKEEPER_SERVICE_APPEND_ROOM_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "service/engine_context.h"
#include "zkstore/batch.h"
#include "zkstore/position.h"
#include "zkstore/signal.h"

namespace postkeeper {

struct AppendSize {
  std::int64_t messages = 0;
  std::int64_t bytes = 0;
  bool has_id = false;
};
AppendSize SizeOf(const CheckedAppend& append);

// How it works. The owner of a log knows what is in it, and keeps the bounds exactly. It writes what it knows to the
// head record: so much is there, up to this position. Another replica reads the head and appends by itself
//
//  - at most its allowance, a sixteenth of each bound, behind the position of the head;
//  - to a queue only while what the head says and what it has written behind it are within the bounds;
//  - only while the logs that it owns and those that it appends to are together within the bound of all.
//
// Whatever does not fit goes through the owner, who decides; a full queue is told by its owner alone. So with n
// replicas a log can be over its bounds by at most n - 1 sixteenths, however old their readings are and whether or not
// somebody owns it: a position that the head has not passed stays counted. The owner writes the head anew when others
// have written a quarter of an allowance (IsHeadDue), so that no replica comes to its end while the owner follows.
//
// A head that goes back (a new owner has not read all yet) is not believed until it has caught up.
//
// Lives on the strand of its engine; held by shared_ptr, coroutines keep it alive.
class AppendRoom : public std::enable_shared_from_this<AppendRoom> {
 public:
  static constexpr std::int64_t kPart = 16;
  // While this replica appends, it reads the head so often; and much sooner once a quarter of its allowance is used.
  static constexpr Duration kLookAgainAfter = std::chrono::seconds(1);
  static constexpr Duration kLookSoonerAfter = std::chrono::milliseconds(50);
  // An older reading is of no use: the settings may be others.
  static constexpr Duration kAgeMax = std::chrono::seconds(10);

  struct Amount {
    std::int64_t messages = 0;
    std::int64_t bytes = 0;
    std::int64_t batches = 0;

    Amount& operator+=(const Amount& other);
    Amount& operator-=(const Amount& other);
    bool IsWithin(const Amount& bound) const;
  };

  AppendRoom(EngineContext& context, const LogEntry& entry, asio::any_io_executor strand);
  ~AppendRoom();

  // What a replica may write unseen.
  static Amount AllowanceOf(const LogSettings& settings, const EngineLimits& limits);
  // QUEUE_FULL if `live` and this are too much.
  static absl::Status CheckQueueBounds(const Amount& live, const AppendSize& append, const QueueSettings& settings,
                                       const EngineLimits& limits, const std::string& full_name);
  // STORE_FULL.
  static absl::Status CheckStoreBound(std::int64_t bytes_then, const EngineLimits& limits,
                                      const std::string& full_name);
  // For the owner: whether the head is to be written, after so much of other replicas.
  static bool IsHeadDue(const Amount& of_others, const LogSettings& settings, const EngineLimits& limits);

  // This may be appended without asking the owner. False also when the head was not read lately.
  bool Fits(const AppendSize& append);
  Environment& environment() const { return context_.environment; }
  // QUEUE_FULL or STORE_FULL, if the bounds are passed by all that is known.
  absl::Status CheckBounds(const AppendSize& append, const std::string& full_name) const;
  // Any request of a stream fits some time, if the owner follows.
  bool SuitsStreams() const;
  // Reads the head, if that may help what does not fit. NOT_FOUND: the log is gone. ZOOKEEPER_UNAVAILABLE,
  // STORE_CORRUPT.
  Task<absl::Status> LookIfNeeded(AppendSize append);
  // The same, whatever is known.
  Task<absl::Status> Look();

  // An append of this replica that does not own the log is on its way, and has ended.
  void Begin(const AppendSize& append);
  void End(const AppendSize& append);
  // Its batch is in the log. Without a position: its reply was lost, and it stands before the next one.
  void OnAppended(std::optional<Position> at, const Batch& batch);

  // This replica has not appended for long.
  void Rest();
  // It owns the log now.
  void Forget();

 private:
  struct Unseen {
    std::optional<Position> at;
    Amount amount;
  };

  bool IsOlderThan(Duration age) const;
  Task<absl::Status> LookOnce();
  void Learn(Position counted, const Amount& live);
  void CountBytes();

  // Constant after construction.
  EngineContext& context_;
  const LogName name_;
  const Uid log_;
  const asio::any_io_executor strand_;

  // Touched only on the strand.
  LogSettings settings_;
  Amount allowance_;
  std::optional<Instant> looked_at_;  // nothing is used without it
  Position counted_;                  // what the head covers
  Amount live_;
  // Written by this replica behind it; at most an allowance's batches, and what is in flight.
  std::deque<Unseen> unseen_;
  Amount unseen_sum_;
  Amount in_flight_;                   // its batches are not known
  std::int64_t bytes_in_context_ = 0;  // what this log adds to the context's sum
  bool is_looking_ = false;
  std::uint64_t times_forgotten_ = 0;
  absl::Status look_status_;
  Signal looked_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_APPEND_ROOM_H_
