// One client's Consume stream, over changes of the queue's owner.
#ifndef POSTKEEPER_SERVICE_CONSUME_SESSION_H_
#define POSTKEEPER_SERVICE_CONSUME_SESSION_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "service/consume_leg.h"
#include "service/held_leases.h"
#include "zkstore/signal.h"

namespace postkeeper {

// How it works. It lives at the replica that the client is connected to, whoever owns the queue, and has one leg at a
// time (consume_leg.h): the engine here, or a stream to the owner. It knows what the next owner has to be told: the
// credit that is left, the leases that the client holds, and the settling frames that are not answered. When a leg ends
// because the owner has changed, crashed or is going away, or when the engine here hears of another owner, it opens the
// next leg with that, and sends the unanswered frames again, in order. Settling twice is harmless; what the first
// owner has carried out and not answered, the second one calls ALREADY_SETTLED. So the client sees a pause: Heartbeats
// say that there is no owner, for as long as it takes and the client stays. Before Opened there is an end to patience:
// kOwnerPatience.
//
// What comes from a leg that is not the latest is dropped (G7): the leases of deliveries that were lost on the way
// lapse.
//
// A stream that another replica relays (`is_relayed`) has its session there: here it ends with its only leg.
//
// Bounded: whoever reads the frames reads no more while too many are unanswered; credit bounds what is held.
//
// Lives on the strand of the engine; all functions are called there, also those of the client, on_end last and once. It
// holds itself until it is over: after on_end or Leave.
class ConsumeSession : public std::enable_shared_from_this<ConsumeSession> {
 public:
  struct Heartbeat {
    Dispatcher::Counts counts;  // the last known
    CheckedCredit credit_left;
    bool has_owner = false;
  };
  struct Client {
    std::function<void(Duration lease)> on_opened;
    std::function<void(LegDeliveries)> on_deliveries;
    // One for each frame that settles, in their order.
    std::function<void(std::int64_t sequence, std::vector<SettleFailure>)> on_settled;
    std::function<void(const Heartbeat&)> on_heartbeat;
    std::function<void(absl::Status)> on_end;
  };
  // A leg to the replica at this address.
  using LegMaker =
      std::function<std::shared_ptr<ConsumeLeg>(std::string owner, LegOpening opening, ConsumeLeg::Listener listener)>;
  struct Options {
    CheckedOpen open;
    std::vector<HeldLease> held;  // is_relayed: what its client holds
    bool is_relayed = false;
    LegMaker make_leg;
  };

  ConsumeSession(Environment& environment, std::shared_ptr<QueueEngine> engine, Options options, Client client);

  void Start();
  // The client's frames; the first one, too. One that breaks a rule ends the stream when those before are answered.
  void Take(CheckedFrame frame);
  void Fail(absl::Status status);
  // The client has half-closed: every frame is answered, then the stream ends. If it was drained, the leases left are
  // released.
  void FinishInput();
  // This replica is going away: nothing more is delivered.
  void StopDeliveries();
  // The client has gone. Nothing of it is called any more; its leases live on.
  void Leave();

 private:
  struct Unanswered {
    std::int64_t sequence = 0;
    SettleOrders orders;
    int times_sent = 0;
    std::optional<std::vector<SettleFailure>> failures;  // once it is answered
  };

  Task<void> Run(std::shared_ptr<ConsumeSession> self);
  Task<void> Beat(std::shared_ptr<ConsumeSession> self);
  Task<absl::Status> FindAndOpen();
  Task<absl::Status> OpenLeg(std::string owner);
  ConsumeLeg::Listener ListenerOf(std::uint64_t number);
  bool MayTryAgain(const absl::Status& why) const;

  void OnOwnerNews(const std::string& owner);
  void OnLegOpened(Duration lease);
  void OnDeliveries(LegDeliveries deliveries);
  void OnSettled(std::int64_t sequence, std::vector<SettleFailure> failures);
  void OnCounts(const Dispatcher::Counts& counts);
  void OnLegEnd(absl::Status status);

  void Send(Unanswered& frame);
  void NoteSettled(const Unanswered& frame);
  void Flush();
  void DropLeg();
  void ReleaseIfDone();
  void SendHeartbeat();
  void End(absl::Status status);

  Environment& environment_;
  const std::shared_ptr<QueueEngine> engine_;
  const Options options_;
  const Client client_;
  HeldLeases held_;
  std::deque<Unanswered> unanswered_;
  Dispatcher::Counts counts_;

  QueueEngine::ObserverId observer_ = 0;
  std::shared_ptr<ConsumeLeg> leg_;
  std::uint64_t leg_number_ = 0;
  std::string leg_owner_;  // its address; "": this replica
  bool is_leg_open_ = false;
  bool has_news_ = false;           // of the owner, since the leg was made
  absl::Status leg_end_;            // of the one before
  CheckedCredit credit_meanwhile_;  // given while the leg was being opened
  Instant leg_heard_at_{};
  std::optional<Instant> leave_leg_at_;  // its owner is going away

  bool has_opened_ = false;  // once
  bool is_stopped_ = false;  // no more deliveries
  bool is_drained_ = false;  // by the client
  bool is_half_closed_ = false;
  bool is_released_ = false;
  bool is_resending_ = false;
  bool is_over_ = false;
  std::optional<absl::Status> failure_;  // for when all frames before are answered
  Instant give_up_at_{};                 // before Opened
  Instant next_heartbeat_{};
  Signal wake_;  // Run
  Signal beat_;  // Beat
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_CONSUME_SESSION_H_
