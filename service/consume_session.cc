#include "service/consume_session.h"

#include <algorithm>
#include <utility>

#include "service/logging.h"
#include "zkstore/errors.h"
#include "zkstore/mutation.h"

namespace postkeeper {
namespace {

// Between two tries to find the owner; news of another one come sooner.
constexpr Duration kPauseMin = std::chrono::milliseconds(50);
constexpr Duration kPauseMax = std::chrono::seconds(1);
// How long one look for the owner lasts once the stream is open, so that a client that has gone is noticed.
constexpr Duration kLookMax = std::chrono::seconds(1);
// How long an owner that is going away has to answer what it was sent, and to send what it had given out; it has when
// it has been quiet for so long.
constexpr Duration kLeaveWithin = std::chrono::seconds(1);
constexpr Duration kLeaveWhenQuietFor = std::chrono::milliseconds(100);
// How long a heartbeat waits for fresh counts.
constexpr Duration kCountsPatience = std::chrono::milliseconds(500);
// A leg that says nothing for so many heartbeats is given up.
constexpr int kSilentHeartbeatsMax = 3;

template <typename Function>
void ForEachToken(const std::vector<std::string>& tokens, Function function) {
  for (const std::string& text : tokens) {
    if (const std::optional<LeaseToken> token = DecodeLeaseToken(text)) function(*token);
  }
}

}  // namespace

ConsumeSession::ConsumeSession(Environment& environment, std::shared_ptr<QueueEngine> engine, Options options,
                               Client client)
    : environment_(environment),
      engine_(std::move(engine)),
      options_(std::move(options)),
      client_(std::move(client)),
      held_(options_.open, options_.held, environment.Now()),
      wake_(environment, engine_->strand()),
      beat_(environment, engine_->strand()) {}

void ConsumeSession::Start() {
  observer_ = engine_->AddOwnerObserver([weak = weak_from_this()](const std::string& owner) {
    if (const std::shared_ptr<ConsumeSession> self = weak.lock()) self->OnOwnerNews(owner);
  });
  give_up_at_ = environment_.Now() + kOwnerPatience;
  Spawn(engine_->strand(), Run(shared_from_this()));
}

// ---- What the client does

void ConsumeSession::Take(CheckedFrame frame) {
  if (failure_ || is_over_) return;
  if (frame.credit) {
    // Before anything of the frame is done.
    if (absl::Status status = held_.AddCredit(*frame.credit, environment_.Now()); !status.ok()) return Fail(status);
  }
  if (frame.Settles()) {
    SettleOrders orders{std::move(frame.ack_tokens), std::move(frame.nacks), std::move(frame.extensions)};
    unanswered_.push_back({.sequence = frame.sequence, .orders = std::move(orders), .failures = {}});
    if (is_leg_open_) Send(unanswered_.back());
  }
  if (frame.credit && is_leg_open_) leg_->AddCredit(*frame.credit);
  if (frame.credit && !is_leg_open_) {
    credit_meanwhile_.messages += frame.credit->messages;
    credit_meanwhile_.bytes += frame.credit->bytes;
  }
  if (frame.drains) {
    is_drained_ = true;
    StopDeliveries();
  }
}

void ConsumeSession::Fail(absl::Status status) {
  if (failure_) return;
  failure_ = std::move(status);
  Flush();
}

void ConsumeSession::FinishInput() {
  is_half_closed_ = true;
  ReleaseIfDone();
  Flush();
}

void ConsumeSession::StopDeliveries() {
  is_stopped_ = true;
  if (is_leg_open_) leg_->Stop();
}

void ConsumeSession::Leave() {
  if (is_over_) return;
  is_over_ = true;
  DropLeg();
  wake_.Notify();
  beat_.Notify();
}

void ConsumeSession::End(absl::Status status) {
  if (is_over_) return;
  Leave();
  client_.on_end(std::move(status));
}

// ---- Legs

Task<void> ConsumeSession::Run(std::shared_ptr<ConsumeSession> self) {
  Duration pause = kPauseMin;
  while (!is_over_) {
    if (leg_) {
      const Instant now = environment_.Now();
      if (!leave_leg_at_) {
        co_await wake_.Wait();
        continue;
      }
      const Instant quiet_at = leg_heard_at_ + kLeaveWhenQuietFor;
      if (now >= *leave_leg_at_ || (unanswered_.empty() && now >= quiet_at)) {
        DropLeg();
      } else {
        const Instant next = unanswered_.empty() ? std::min(quiet_at, *leave_leg_at_) : *leave_leg_at_;
        co_await wake_.WaitFor(next - now);
      }
      continue;
    }
    const absl::Status opened = co_await FindAndOpen();
    if (is_over_) break;
    if (opened.ok()) {
      pause = kPauseMin;
      continue;
    }
    if (!MayTryAgain(opened)) {
      End(opened);
      break;
    }
    if (std::exchange(has_news_, false)) {
      pause = kPauseMin;
      continue;
    }
    co_await wake_.WaitFor(pause);
    pause = std::min(pause * 2, kPauseMax);
  }
  engine_->RemoveOwnerObserver(observer_);
  (void)self;  // keeps this alive
}

bool ConsumeSession::MayTryAgain(const absl::Status& why) const {
  if (options_.is_relayed) return false;  // the session is at the other replica
  const std::optional<Reason> reason = ReasonOf(why);
  const bool is_leaving = reason == Reason::kReplicaDraining && !leg_owner_.empty();
  if (reason == Reason::kNoOwner || is_leaving) return has_opened_ || environment_.Now() < give_up_at_;
  const bool may_pass = reason == Reason::kOutcomeUnknown || reason == Reason::kZookeeperUnavailable ||
                        reason == Reason::kTooManyStreams || reason == Reason::kTooManyCalls;
  return may_pass && has_opened_;
}

Task<absl::Status> ConsumeSession::FindAndOpen() {
  if (!engine_->is_serving()) {
    leg_owner_.clear();
    const Duration look = has_opened_ ? kLookMax : kOwnerPatience;
    const std::optional<std::string> owner = co_await engine_->FindOwner(look);
    if (owner && options_.is_relayed) {
      co_return MakeError(Reason::kNoOwner, Cat("the replica at ", *owner, " works for it, as far as this one knows"));
    }
    if (owner) co_return co_await OpenLeg(*owner);
    if (absl::Status status = co_await engine_->WaitUntilServing(look); !status.ok()) co_return status;
  }
  co_return co_await OpenLeg("");
}

// Returns when the owner has accepted the stream.
Task<absl::Status> ConsumeSession::OpenLeg(std::string owner) {
  if (is_over_) co_return absl::OkStatus();
  has_news_ = false;
  const Instant now = environment_.Now();
  LegOpening opening{options_.open, held_.Held(now), is_stopped_};
  opening.open.credit = held_.CreditLeft(now);
  opening.open.credit.bytes = std::max<std::int64_t>(opening.open.credit.bytes, 1);  // 0 would be the default
  credit_meanwhile_ = {};
  leave_leg_at_.reset();
  leg_owner_ = owner;
  leg_heard_at_ = now;
  ConsumeLeg::Listener listener = ListenerOf(++leg_number_);
  leg_ = owner.empty() ? MakeLocalLeg(engine_, std::move(opening), std::move(listener))
                       : options_.make_leg(owner, std::move(opening), std::move(listener));
  leg_end_ = MakeError(Reason::kNoOwner, Cat("the replica at ", owner, " does not answer"));
  const Instant deadline = now + kOwnerPatience;
  while (leg_ && !is_leg_open_) {
    const Instant at = environment_.Now();
    if (at >= deadline) {
      DropLeg();
    } else {
      co_await wake_.WaitFor(deadline - at);
    }
  }
  if (leg_ || is_over_) co_return absl::OkStatus();
  co_return leg_end_;
}

ConsumeLeg::Listener ConsumeSession::ListenerOf(std::uint64_t number) {
  // Of the latest leg, and while the session is not over.
  auto latest = [weak = weak_from_this(), number]() -> std::shared_ptr<ConsumeSession> {
    std::shared_ptr<ConsumeSession> self = weak.lock();
    if (!self || self->leg_number_ != number || self->is_over_) return nullptr;
    self->leg_heard_at_ = self->environment_.Now();
    return self;
  };
  ConsumeLeg::Listener listener;
  listener.on_opened = [latest](Duration lease) {
    if (const auto self = latest()) self->OnLegOpened(lease);
  };
  listener.on_deliveries = [latest](LegDeliveries deliveries) {
    if (const auto self = latest()) self->OnDeliveries(std::move(deliveries));
  };
  listener.on_settled = [latest](std::int64_t sequence, std::vector<SettleFailure> failures) {
    if (const auto self = latest()) self->OnSettled(sequence, std::move(failures));
  };
  listener.on_counts = [latest](const Dispatcher::Counts& counts) {
    if (const auto self = latest()) self->OnCounts(counts);
  };
  listener.on_leaving = [latest] {
    const auto self = latest();
    if (!self) return;
    self->leave_leg_at_ = self->environment_.Now() + kLeaveWithin;
    self->wake_.Notify();
  };
  listener.on_end = [latest](absl::Status status) {
    if (const auto self = latest()) self->OnLegEnd(std::move(status));
  };
  return listener;
}

void ConsumeSession::OnOwnerNews(const std::string& owner) {
  if (is_over_) return;
  // The engine itself ends its own leg.
  if (leg_ && !leg_owner_.empty() && owner != leg_owner_) DropLeg();
  has_news_ = true;
  wake_.Notify();
}

void ConsumeSession::DropLeg() {
  if (!leg_) return;
  ++leg_number_;  // what it says from now on is dropped
  is_leg_open_ = false;
  std::exchange(leg_, nullptr)->Close();
}

void ConsumeSession::OnLegOpened(Duration lease) {
  is_leg_open_ = true;
  wake_.Notify();
  if (!std::exchange(has_opened_, true)) {
    client_.on_opened(lease);
    next_heartbeat_ = environment_.Now() + options_.open.heartbeat_interval;
    Spawn(engine_->strand(), Beat(shared_from_this()));
  } else {
    LogDebug("a consumer goes on", {{"source", options_.open.source.Full()}, {"owner", leg_owner_}});
  }
  if (credit_meanwhile_.messages > 0 || credit_meanwhile_.bytes > 0) leg_->AddCredit(credit_meanwhile_);
  if (is_stopped_) leg_->Stop();
  if (IsMutated(Mutation::kLoseUnanswered)) {
    std::erase_if(unanswered_, [](const Unanswered& frame) { return frame.times_sent > 0; });
  }
  is_resending_ = true;  // the engine may answer at once
  for (Unanswered& frame : unanswered_) {
    if (!is_leg_open_) break;  // it ended by one of them
    if (!frame.failures) Send(frame);
  }
  is_resending_ = false;
  Flush();
  ReleaseIfDone();
}

// A leg that had ended in the middle of the release is followed by one that releases what is left.
void ConsumeSession::ReleaseIfDone() {
  if (is_half_closed_ && is_drained_ && is_leg_open_) leg_->Release();
}

void ConsumeSession::OnLegEnd(absl::Status status) {
  DropLeg();
  if (status.ok() && is_half_closed_ && unanswered_.empty()) {
    is_released_ = true;
    return Flush();
  }
  leg_end_ = status.ok() ? MakeError(Reason::kNoOwner, "the stream to the owner was closed") : std::move(status);
  if (has_opened_ && !MayTryAgain(leg_end_)) return End(leg_end_);
  wake_.Notify();
}

// ---- What the owner says

void ConsumeSession::OnDeliveries(LegDeliveries deliveries) {
  const Instant now = environment_.Now();
  for (const HeldLease& lease : deliveries.leases) held_.Add(lease, now);
  client_.on_deliveries(std::move(deliveries));
}

void ConsumeSession::Send(Unanswered& frame) {
  if (++frame.times_sent == 1) {
    const auto note = [this](const LeaseToken& token) { held_.OnSettling(token); };
    ForEachToken(frame.orders.ack_tokens, note);
    for (const CheckedNacks& nacks : frame.orders.nacks) ForEachToken(nacks.lease_tokens, note);
  }
  leg_->Settle(frame.sequence, frame.orders);
}

void ConsumeSession::OnSettled(std::int64_t sequence, std::vector<SettleFailure> failures) {
  const auto frame = std::lower_bound(unanswered_.begin(), unanswered_.end(), sequence,
                                      [](const Unanswered& a, std::int64_t b) { return a.sequence < b; });
  if (frame == unanswered_.end() || frame->sequence != sequence || frame->failures) return;
  frame->failures = std::move(failures);
  NoteSettled(*frame);
  Flush();
}

void ConsumeSession::NoteSettled(const Unanswered& frame) {
  const auto remove = [this](const LeaseToken& token) { held_.Remove(token); };
  ForEachToken(frame.orders.ack_tokens, remove);
  for (const CheckedNacks& nacks : frame.orders.nacks) ForEachToken(nacks.lease_tokens, remove);
  const Instant now = environment_.Now();
  for (const CheckedExtensions& extensions : frame.orders.extensions) {
    const Duration of_queue = std::get<QueueSettings>(engine_->entry().settings).lease_duration;
    const Duration lease = extensions.lease.value_or(of_queue);
    ForEachToken(extensions.lease_tokens, [&](const LeaseToken& token) { held_.Extend(token, lease, now); });
  }
}

void ConsumeSession::Flush() {
  if (is_resending_) return;
  while (!unanswered_.empty() && unanswered_.front().failures) {
    Unanswered answered = std::move(unanswered_.front());
    unanswered_.pop_front();
    client_.on_settled(answered.sequence, *std::move(answered.failures));
    if (is_over_) return;
  }
  if (!unanswered_.empty()) return;
  if (failure_) return End(*failure_);
  if (is_half_closed_ && (!is_drained_ || is_released_)) return End(absl::OkStatus());
  if (leave_leg_at_) wake_.Notify();
}

// ---- Heartbeats

Task<void> ConsumeSession::Beat(std::shared_ptr<ConsumeSession> self) {
  while (!is_over_) {
    const Instant now = environment_.Now();
    if (now < next_heartbeat_) {
      co_await beat_.WaitFor(next_heartbeat_ - now);
      continue;
    }
    const bool is_silent = now - leg_heard_at_ > kSilentHeartbeatsMax * options_.open.heartbeat_interval;
    if (is_leg_open_ && !leg_owner_.empty() && is_silent) {
      DropLeg();
      wake_.Notify();
    }
    if (is_leg_open_) {
      const Instant due = next_heartbeat_;
      leg_->AskCounts();
      co_await beat_.WaitFor(kCountsPatience);
      if (is_over_ || next_heartbeat_ != due) continue;
    }
    SendHeartbeat();
  }
  (void)self;  // keeps this alive
}

// The owner's heartbeats are passed on when they come.
void ConsumeSession::OnCounts(const Dispatcher::Counts& counts) {
  counts_ = counts;
  SendHeartbeat();
  beat_.Notify();
}

void ConsumeSession::SendHeartbeat() {
  const Instant now = environment_.Now();
  next_heartbeat_ = now + options_.open.heartbeat_interval;
  const bool has_owner = is_leg_open_ && (!leg_owner_.empty() || engine_->is_serving());
  client_.on_heartbeat({counts_, held_.CreditLeft(now), has_owner});
}

}  // namespace postkeeper
