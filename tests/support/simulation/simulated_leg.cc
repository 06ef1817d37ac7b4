#include "tests/support/simulation/simulated_leg.h"

#include <algorithm>
#include <utility>

#include "service/relayed_consume.h"

namespace postkeeper {

std::shared_ptr<SimulatedLeg> SimulatedLeg::Start(Cluster& cluster, ProcessPtr process, asio::any_io_executor strand,
                                                  Name name, std::string owner, LegOpening opening, Listener listener,
                                                  Witness witness) {
  std::shared_ptr<SimulatedLeg> leg(
      new SimulatedLeg(cluster, std::move(process), strand, std::move(listener), std::move(witness)));
  Spawn(strand, leg->Run(leg, std::move(name), std::move(owner), std::move(opening)));
  return leg;
}

Task<void> SimulatedLeg::Run(std::shared_ptr<SimulatedLeg> self, Name name, std::string owner, LegOpening opening) {
  const int to = cluster_.SlotOf(owner);
  absl::StatusOr<bool> end = MakeError(Reason::kNoOwner, Cat("the stream to ", owner, " broke"));
  if (cluster_.CanConnect(process_->slot, to)) {
    cluster_.CountRelayed();
    cluster_.Trace(Cat("replica ", process_->slot, " opens a leg for ", name.id, " to replica ", to, ", with ",
                       opening.held.size(), " leases"));
    Cluster::Work<QueueEngine, Cluster::StreamEnd> work = [self, opening](std::shared_ptr<QueueEngine> engine,
                                                                          ProcessPtr there) {
      return self->ServeAtOwner(self, std::move(engine), std::move(there), opening);
    };
    const std::optional<Cluster::StreamEnd> answer = co_await cluster_.OpenStream<QueueEngine>(
        process_->replica->environment(), process_->slot, to, std::move(name), std::move(work));
    if (answer) end = *answer;
  } else {
    co_await SleepFor(process_->replica->environment(), std::chrono::seconds(1));
  }
  LeaveThere();
  if (is_closed_) co_return;
  is_closed_ = true;
  listener_.on_end(end.status());
}

// ---- At the relay

void SimulatedLeg::Settle(std::int64_t sequence, const SettleOrders& orders) {
  CheckedFrame frame;
  frame.sequence = sequence;
  frame.ack_tokens = orders.ack_tokens;
  frame.nacks = orders.nacks;
  frame.extensions = orders.extensions;
  SendFrame(std::move(frame));
}

void SimulatedLeg::AddCredit(const CheckedCredit& credit) {
  CheckedFrame frame;
  frame.credit = credit;
  SendFrame(std::move(frame));
}

void SimulatedLeg::Stop() {
  CheckedFrame frame;
  frame.drains = true;
  SendFrame(std::move(frame));
}

void SimulatedLeg::Release() {
  SendThere([](ConsumeSession& session) { session.FinishInput(); });
}

void SimulatedLeg::Close() {
  is_closed_ = true;
  SendThere([self = shared_from_this()](ConsumeSession&) { self->LeaveThere(); });
}

void SimulatedLeg::SendFrame(CheckedFrame frame) {
  SendThere([frame = std::move(frame)](ConsumeSession& session) { session.Take(frame); });
}

void SimulatedLeg::SendThere(std::function<void(ConsumeSession&)> act) {
  if (!strand_there_ || process_->is_dead) return;
  const Instant now = cluster_.environment().Now();
  last_there_ = std::max(last_there_, now + cluster_.Latency());
  cluster_.environment().RunAfter(last_there_ - now, [self = shared_from_this(), act = std::move(act)] {
    asio::post(*self->strand_there_, [self, act] {
      if (self->session_ && !self->is_left_) act(*self->session_);
    });
  });
}

// ---- At the owner

// The relay has gone, or the connection.
void SimulatedLeg::LeaveThere() {
  if (!strand_there_ || std::exchange(is_left_, true)) return;
  asio::post(*strand_there_, [self = shared_from_this()] {
    if (self->session_) self->session_->Leave();
  });
}

Task<Cluster::StreamEnd> SimulatedLeg::ServeAtOwner(std::shared_ptr<SimulatedLeg> self,
                                                    std::shared_ptr<QueueEngine> engine, ProcessPtr owner,
                                                    LegOpening opening) {
  (void)self;                      // keeps this alive
  if (is_closed_) co_return true;  // before it began here; gRPC would not begin it
  struct Ending {
    Ending(Environment& environment, asio::any_io_executor executor) : signal(environment, std::move(executor)) {}
    Signal signal;
    std::optional<absl::Status> status;
  };
  const auto ending = std::make_shared<Ending>(owner->replica->environment(), engine->strand());
  ConsumeSession::Options options;
  options.open = opening.open;
  options.held = opening.held;
  options.is_relayed = true;
  std::function<void(absl::Status)> on_end = [ending](absl::Status status) {
    ending->status = std::move(status);
    ending->signal.Notify();
  };
  ConsumeSession::Client client = ClientAtOwner(owner, engine, on_end);
  session_ =
      std::make_shared<ConsumeSession>(owner->replica->environment(), engine, std::move(options), std::move(client));
  strand_there_ = engine->strand();
  session_->Start();
  if (opening.is_stopped) {
    CheckedFrame drain;
    drain.drains = true;
    session_->Take(std::move(drain));
  }
  while (!ending->status && !is_left_) co_await ending->signal.WaitFor(std::chrono::seconds(1));
  session_->Leave();
  session_.reset();
  if (!ending->status || ending->status->ok()) co_return true;
  co_return *ending->status;
}

ConsumeSession::Client SimulatedLeg::ClientAtOwner(ProcessPtr owner, std::shared_ptr<QueueEngine> engine,
                                                   std::function<void(absl::Status)> on_end) {
  const std::weak_ptr<SimulatedLeg> weak = weak_from_this();
  ConsumeSession::Client client;
  client.on_opened = [weak, owner, engine](Duration lease) {
    const auto self = weak.lock();
    if (!self || owner->is_dead) return;
    self->witness_.on_opened(owner, engine);
    self->SendBack([lease](SimulatedLeg& leg) { leg.listener_.on_opened(lease); });
  };
  client.on_deliveries = [weak, owner, engine](LegDeliveries deliveries) {
    const auto self = weak.lock();
    if (!self || owner->is_dead) return;
    self->witness_.on_deliveries(owner, engine, deliveries);
    deliveries.encoded = std::make_shared<const EncodedDeliveries>();  // as a sign that it was on its way
    self->SendBack([deliveries](SimulatedLeg& leg) { leg.listener_.on_deliveries(deliveries); });
  };
  client.on_settled = [weak, owner, engine](std::int64_t sequence, std::vector<SettleFailure> failures) {
    const auto self = weak.lock();
    if (!self || owner->is_dead) return;
    self->witness_.on_settled(owner, engine, sequence, failures);
    self->SendBack([sequence, failures](SimulatedLeg& leg) { leg.listener_.on_settled(sequence, failures); });
  };
  client.on_heartbeat = [weak, owner](const ConsumeSession::Heartbeat& heartbeat) {
    const auto self = weak.lock();
    if (!self || owner->is_dead) return;
    self->SendBack([counts = heartbeat.counts](SimulatedLeg& leg) { leg.listener_.on_counts(counts); });
  };
  client.on_end = std::move(on_end);
  return client;
}

void SimulatedLeg::SendBack(std::function<void(SimulatedLeg&)> act) {
  if (is_left_) return;
  const Instant now = cluster_.environment().Now();
  last_back_ = std::max(last_back_, now + cluster_.Latency());
  cluster_.environment().RunAfter(last_back_ - now, [self = shared_from_this(), act = std::move(act)] {
    asio::post(self->strand_, [self, act] {
      if (!self->is_closed_ && !self->is_left_ && !self->process_->is_dead) act(*self);
    });
  });
}

}  // namespace postkeeper
