// Gets and keeps the ownership of one log for its engine.
#ifndef POSTKEEPER_SERVICE_LOG_OWNERSHIP_H_
#define POSTKEEPER_SERVICE_LOG_OWNERSHIP_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "service/engine_context.h"
#include "zkstore/owner.h"
#include "zkstore/signal.h"

namespace postkeeper {

// How it works. It takes the log when it is free, and lets the engine load what is stored. Of several replicas the one
// that rendezvous hashing names takes a free log at once (EngineContext::is_first_choice); the others only when it is
// still free after kFreeForAnyone. A log that nobody has ever had goes to whoever wants it first: who created it. When
// the ZooKeeper session has expired, it takes the log again under the new one; the engine keeps its memory, since
// nobody else had the log in between. If somebody had, or the engine finds out by a refused write, the engine is told
// that the log is lost, and the taking begins anew.
//
// Lives on the strand of the engine; the functions of the listener are called there. Held by shared_ptr; keeps itself
// alive until Stop.
class LogOwnership : public std::enable_shared_from_this<LogOwnership> {
 public:
  static constexpr Duration kFreeForAnyone = std::chrono::seconds(2);

  struct Listener {
    // This process owns the log now, in a new epoch: load what is stored. An error gives it up for a while.
    std::function<Task<absl::Status>(OwnerView held)> on_taken;
    // It owns it still, under another version.
    std::function<void(const OwnerView& held)> on_retaken;
    // It does not own it any more. Not called before on_taken was through.
    std::function<void(absl::Status why)> on_lost;
    // Another replica, at this address, has it. Called again and again while that is so.
    std::function<void(const std::string& owner)> on_owned_elsewhere;
    // The log is deleted. Nothing is called after it.
    std::function<void()> on_gone;
  };

  LogOwnership(EngineContext& context, const Uid& log, asio::any_io_executor strand, Listener listener);

  void Start();
  // This process is registered under a new session. Thread-safe.
  void OnSessionChange();
  // Tries at once, while it does not hold the log. Thread-safe.
  void Look();
  // The engine has found that the log is not ours, or its memory not right: on_lost is called, and it is taken again.
  void Lose(absl::Status why);
  // The engine has found that the log is deleted: on_gone is called.
  void SetGone();
  // Something does not fit to what the engine knows: perhaps it was deposed and has not heard of it. Then the log is
  // given up as by Lose, and the answer is NO_OWNER. NOT_FOUND, ZOOKEEPER_UNAVAILABLE: it could not be asked.
  Task<absl::Status> Confirm();
  // The same, without waiting for the answer.
  void Doubt();
  // The engine is about to give the log to another replica, by a write of its own: it is not held from now on, the
  // listener is not called, and it is not taken before EndHandOver. To be called while it is held.
  void BeginHandOver();
  void EndHandOver();
  // No calls to the listener after this.
  void Stop();

  // Thread-safe.
  bool is_held() const { return is_held_; }
  // Thread-safe.
  bool is_gone() const { return is_gone_; }
  // Another replica has it, as far as is known.
  bool is_elsewhere() const { return owner_elsewhere_.has_value(); }
  // What is held, or was held last.
  const OwnerView& held() const { return held_; }
  // In this reign leases are given out: the next owner, were it this process, has to know them.
  void NoteGivenOut() { served_reign_ = held_.first_epoch; }

  // The address of another replica that has it, as last seen; nullopt: this one, or it is not known.
  const std::optional<std::string>& owner_elsewhere() const { return owner_elsewhere_; }

  // Waits at most `timeout` until it is known who works for the log. The address of another replica that is alive, as
  // last seen; nullopt: this one, or nobody knows, or the log is gone.
  Task<std::optional<std::string>> FindOwner(Duration timeout);
  // OK when the log is held; waits at most `timeout`, and not at all once another replica is known to have it, and not
  // long while ZooKeeper does not answer.
  // ZOOKEEPER_UNAVAILABLE, NO_OWNER; absl::NotFound when the log is gone.
  Task<absl::Status> WaitUntilHeld(Duration timeout);

 private:
  Task<void> Run(std::shared_ptr<LogOwnership> self);
  Task<absl::Status> Take();
  void CountTaken(Instant taken_at, std::optional<Instant> ownerless_since);
  Task<void> LookWhoOwnsIt();
  Task<void> Retake();
  bool MayTake(const OwnerView& free);
  Duration PauseBeforeNextLook() const;
  void Release();

  EngineContext& context_;
  const Uid log_;
  const asio::any_io_executor strand_;
  const std::uint64_t number_;  // among those of the process

  // Touched only on the strand.
  Listener listener_;
  std::atomic<bool> is_held_ = false;
  std::atomic<bool> is_gone_ = false;
  bool is_stopped_ = false;
  OwnerView held_;
  std::int64_t served_reign_ = 0;               // the first epoch of the latest one in which leases were given out
  std::int64_t session_id_ = 0;                 // under which it was taken
  bool has_new_session_ = false;                // than that, perhaps
  absl::Status why_not_;                        // while it is not held
  std::optional<std::string> owner_elsewhere_;  // while it is not held
  bool is_watching_ = false;                    // the owner record
  bool is_handing_over_ = false;
  bool is_in_doubt_ = false;           // Confirm is on its way
  std::optional<Instant> free_since_;  // as far as it was looked, and left to another replica
  Signal wake_;                        // for Run
  Signal changed_;                     // for those who wait until it is held
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_LOG_OWNERSHIP_H_
