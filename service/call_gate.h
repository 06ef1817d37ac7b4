// Who may come in: counts calls and streams, and shows them out when the server stops.
#ifndef POSTKEEPER_SERVICE_CALL_GATE_H_
#define POSTKEEPER_SERVICE_CALL_GATE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "zkstore/environment.h"

namespace postkeeper {

// A stream as the gate sees it. All functions are thread-safe and return at once; each may come in any state.
class OpenStream {
 public:
  virtual ~OpenStream() = default;
  // The client should go on elsewhere. The stream tells it so in its own way; it is ended after `grace`.
  virtual void AskToLeave(std::string_view why, Duration grace) = 0;
  // Ends with this status once the frame on its way is written; other frames are dropped.
  virtual void EndNow(absl::Status why) = 0;
  // Breaks it, when its client reads nothing and EndNow cannot get through.
  virtual void Break() = 0;
};

// How it works. Every call and stream enters and leaves; past a maximum, or while the server stops, it is refused at
// the door. Streams that live for long are asked to leave after about stream_age_max, so that a new replica gets work
// and none has to be cut off: gRPC's own limit for a connection only makes the client open another one for what is new,
// and cuts off what is left much later.
//
// Thread-safe. No lock is held while a stream is called.
class CallGate {
 public:
  // A stream that did not end by EndNow is broken after this.
  static constexpr Duration kBreakAfter = std::chrono::seconds(10);

  struct Options {
    std::int64_t calls_max = 10'000;
    std::int64_t streams_max = 10'000;
    Duration stream_age_max = std::chrono::minutes(30);  // +- 10 %
    Duration stream_grace = std::chrono::minutes(5);
  };

  CallGate(Environment& environment, Options options) : environment_(environment), options_(options) {}

  // OK, to be followed by LeaveCall; or REPLICA_DRAINING, TOO_MANY_CALLS.
  absl::Status EnterCall();
  void LeaveCall() { --calls_; }

  // OK, to be followed by LeaveStream; or REPLICA_DRAINING, TOO_MANY_STREAMS.
  absl::Status EnterStream(const std::shared_ptr<OpenStream>& stream);
  void LeaveStream(const OpenStream* stream);

  // Asks old streams to leave, ends those whose grace is over. To be called about once per second.
  void Tick();

  // Refuses what is new, and asks all streams to leave within `grace`.
  void Drain(Duration grace);
  bool is_draining() const { return is_draining_; }
  // Ends the streams that are left.
  void EndStreams();
  bool IsEmpty() const;

 private:
  struct Entry {
    std::weak_ptr<OpenStream> stream;
    Instant ask_at{};
    Instant end_at = Instant::max();  // known once it was asked
    Instant break_at = Instant::max();
  };

  Environment& environment_;
  const Options options_;
  std::atomic<std::int64_t> calls_ = 0;
  std::atomic<bool> is_draining_ = false;

  mutable absl::Mutex mutex_;
  absl::flat_hash_map<const OpenStream*, Entry> streams_ ABSL_GUARDED_BY(mutex_);
};

// REPLICA_DRAINING, as every call gives it.
absl::Status ReplicaDraining();

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_CALL_GATE_H_
