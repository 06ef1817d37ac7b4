#include "tests/support/faults/queue_history.h"

#include <algorithm>
#include <utility>

#include "zkstore/errors.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kLease = seconds(5);
// For what was on its way to the consumer.
constexpr Duration kLeaseSlack = seconds(2);

auto AgeOf(const LeaseToken& token) { return std::pair(token.epoch, token.number); }

}  // namespace

QueueHistory::QueueHistory(std::uint64_t seed) : FaultWorld(seed) {
  settings_.lease_duration = kLease;
  settings_.retry_backoff = milliseconds(100);
  settings_.retry_backoff_max = seconds(2);
}

QueueHistory::~QueueHistory() = default;

// ---- The processes

void QueueHistory::OnBoot(int slot) {
  queues_[static_cast<std::size_t>(slot)] = slots_[static_cast<std::size_t>(slot)].replica->Queue("q", settings_);
  OpenStream(slot);
}

void QueueHistory::OnEnd(int slot) {
  std::erase_if(settles_, [&](const std::shared_ptr<Settle>& settle) {
    if (settle->slot != slot) return false;
    lives_[settle->text].is_perhaps_acked |= settle->is_ack;
    return true;
  });
  queues_[static_cast<std::size_t>(slot)].reset();
}

bool QueueHistory::IsServing(int slot) const {
  const auto& queue = queues_[static_cast<std::size_t>(slot)];
  return queue && queue->is_serving();
}

bool QueueHistory::IsOver(int slot, int incarnation) const {
  return slots_[static_cast<std::size_t>(slot)].incarnation != incarnation;
}

void QueueHistory::OnBeforeRestart(int slot) {
  stopping_epoch_.reset();
  if (IsServing(slot)) stopping_epoch_ = queues_[static_cast<std::size_t>(slot)]->epoch();
}

// If the log is nobody's now, the next owner knows of the leases that are not over.
void QueueHistory::OnStopped(int) {
  if (!stopping_epoch_ || deposed_epochs_.contains(static_cast<std::int64_t>(*stopping_epoch_))) return;
  const std::optional<OwnerView> owner = ReadOwnerNow();
  const bool was_let_go =
      owner && owner->state == OwnerView::State::kNobody && owner->epoch == static_cast<std::int64_t>(*stopping_epoch_);
  if (was_let_go) handed_over_epochs_.insert(*stopping_epoch_);
}

// ---- Producers

std::shared_ptr<Pending<AppendOutcome>> QueueHistory::StartAppend(int slot, CheckedAppend append) {
  for (const NewMessage& message : append.messages) {
    lives_[message.bytes].is_delayed = message.due != NewMessage::kNotDelayed;
  }
  return StartEnqueue(queues_[static_cast<std::size_t>(slot)], std::move(append));
}

// ---- Consumers

void QueueHistory::OpenStream(int slot) {
  const std::shared_ptr<QueueEngine> queue = queues_[static_cast<std::size_t>(slot)];
  const int incarnation = slots_[static_cast<std::size_t>(slot)].incarnation;
  PostTo(environment_, queue, [this, queue, slot, incarnation] {
    CheckedOpen open;
    open.credit = {7, 1 << 20};
    open.is_credit_manual = false;
    QueueEngine::ConsumerCallbacks callbacks;
    callbacks.on_deliveries = [this, slot, incarnation](const std::vector<Delivery>& deliveries, Duration) {
      if (!IsOver(slot, incarnation)) Receive(slot, deliveries, first_of_stream_);
    };
    if (!queue->AddConsumer(open, std::move(callbacks)).ok()) Violate("a stream is refused");
  });
}

void QueueHistory::Dequeue() {
  const int slot = PickSlot();
  CheckedDequeue request;
  request.messages_max = static_cast<int>(1 + random_.Below(5));
  request.bytes_max = 1 << 20;
  request.wait = milliseconds(random_.Below(2000));
  auto call = [](QueueHistory* history, std::shared_ptr<QueueEngine> queue, CheckedDequeue wanted, int at,
                 int incarnation) -> Task<void> {
    const auto handle = std::make_shared<QueueEngine::CallHandle>();
    FirstAttempts before = history->first_of_all_;  // two calls at the same time may be answered in any order
    absl::StatusOr<QueueEngine::Dequeued> outcome = co_await queue->Dequeue(std::move(wanted), handle);
    if (outcome.ok() && !history->IsOver(at, incarnation)) history->Receive(at, outcome->deliveries, before);
  };
  const auto& queue = queues_[static_cast<std::size_t>(slot)];
  Spawn(queue->strand(),
        call(this, queue, std::move(request), slot, slots_[static_cast<std::size_t>(slot)].incarnation));
}

void QueueHistory::Receive(int slot, const std::vector<Delivery>& deliveries, FirstAttempts& before) {
  for (const Delivery& delivery : deliveries) {
    const std::string text(delivery.message());
    if (!lives_.contains(text)) return Violate(Cat("G2: ", text, " is delivered and was never sent"));
    Life& life = lives_[text];
    Trace(Cat("replica ", slot, " delivers ", text, " at ", delivery.token.position.DebugString(), " epoch ",
              delivery.token.epoch, " number ", delivery.token.number));
    CheckSelfFence(slot, text);
    CheckDelivery(text, life, delivery);
    CheckOrder(text, life, delivery, before);
    life.given.push_back({delivery.token, delivery.message_id(), environment_.Now()});
    inbox_.push_back(text);
  }
}

// G3, G4, G6 at the moment of a delivery. One of an earlier epoch may still be on its way, or come from an owner that
// does not know yet that it was deposed.
void QueueHistory::CheckDelivery(const std::string& text, const Life& life, const Delivery& delivery) {
  const LeaseToken& token = delivery.token;
  if (life.acked_epoch && token.epoch >= *life.acked_epoch) {
    Violate(Cat("G3: ", text, " is delivered after its ack was answered OK"));
  }
  if (!tokens_.insert(token).second) Violate(Cat("G6: ", text, " was given twice under one token"));
  for (const Given& earlier : life.given) {
    if (earlier.message_id != delivery.message_id() || earlier.token.position != token.position) {
      Violate(Cat("G4: ", text, " was written twice"));
    }
    if (earlier.token.epoch <= token.epoch && earlier.token.number >= 2 && token.number <= earlier.token.number) {
      Violate(Cat("G6: ", text, ": a delivery number was not durable"));
    }
    if (earlier.was_given_back || environment_.Now() >= earlier.at + kLease - kLeaseSlack) continue;
    if (earlier.token.epoch == token.epoch) Violate(Cat("G6: ", text, " has two live leases"));
    if (earlier.token.epoch + 1 == token.epoch && handed_over_epochs_.contains(earlier.token.epoch)) {
      Violate(Cat("G6: ", text, " has a lease that was handed over, and is delivered again"));
    }
  }
}

// G5: first attempts come in the order of the log, in one epoch.
void QueueHistory::CheckOrder(const std::string& text, const Life& life, const Delivery& delivery,
                              FirstAttempts& before) {
  if (!life.given.empty() || life.is_delayed || delivery.attempt != 1) return;
  Position& last = before[delivery.token.epoch];
  if (delivery.token.position <= last) Violate(Cat("G5: ", text, " comes first after a later one"));
  last = std::max(last, delivery.token.position);
  Position& last_of_all = first_of_all_[delivery.token.epoch];
  last_of_all = std::max(last_of_all, last);
}

// ---- What they say

void QueueHistory::Send(Settle settle, std::optional<CheckedNacks> nacks) {
  Life& life = lives_[settle.text];
  settle.slot = PickSlot();
  settle.incarnation = slots_[static_cast<std::size_t>(settle.slot)].incarnation;
  for (Given& given : life.given) {
    settle.is_outdated |= AgeOf(given.token) > AgeOf(settle.token);
    given.was_given_back |= given.token == settle.token;
  }
  SettleOrders orders;
  if (nacks) {
    orders.nacks.push_back(*std::move(nacks));
  } else {
    orders.ack_tokens.push_back(EncodeLeaseToken(settle.token));
  }
  auto call = [](QueueHistory* history, std::shared_ptr<QueueEngine> queue, SettleOrders given,
                 std::shared_ptr<Settle> sent) -> Task<void> {
    SettleOutcome outcome = co_await queue->Settle(std::move(given));
    if (history->IsOver(sent->slot, sent->incarnation)) co_return;
    sent->outcome = std::move(outcome);
    history->OnSettled(*sent, static_cast<std::uint64_t>(queue->epoch()));
  };
  const auto sent = std::make_shared<Settle>(std::move(settle));
  const auto& queue = queues_[static_cast<std::size_t>(sent->slot)];
  settles_.push_back(sent);
  Spawn(queue->strand(), call(this, queue, std::move(orders), sent));
}

void QueueHistory::OnSettled(Settle& settle, std::uint64_t epoch) {
  Trace(Cat("replica ", settle.slot, " answers the ", settle.is_ack ? "ack of " : "nack of ", settle.text, " epoch ",
            settle.token.epoch, ": ",
            !settle.outcome->ok()        ? std::string(settle.outcome->status().message())
            : (*settle.outcome)->empty() ? std::string("OK")
                                         : (*settle.outcome)->front().detail));
  if (!settle.is_ack || !settle.outcome->ok()) return;
  const std::vector<SettleFailure>& failures = **settle.outcome;
  Life& life = lives_[settle.text];
  const bool is_ok = failures.empty();
  if (is_ok && settle.is_outdated) Violate(Cat("G6: a stale ack settled ", settle.text));
  if (is_ok || failures.front().error == SettleError::kAlreadySettled) {
    life.acked_epoch = std::min(life.acked_epoch.value_or(epoch), epoch);
  } else if (failures.front().error == SettleError::kStaleLease) {
    life.is_perhaps_acked |= settle.was_unknown;
  } else {
    Violate(Cat("G11: the ack of ", settle.text, " is answered: ", failures.front().detail));
  }
}

void QueueHistory::WorkThroughInbox() {
  for (const std::string& text : std::exchange(inbox_, {})) {
    Settle settle;
    settle.text = text;
    settle.token = lives_[text].given.back().token;
    const std::uint64_t dice = random_.Below(100);
    if (dice < 65 || is_healing_) {
      settle.is_ack = true;
      Send(std::move(settle), std::nullopt);
    } else if (dice < 85) {
      CheckedNacks nacks{.lease_tokens = {EncodeLeaseToken(settle.token)}};
      nacks.kind = dice < 72 ? NackKind::kRelease : NackKind::kRetry;
      if (dice >= 76) nacks.delay = milliseconds(random_.Below(dice >= 82 ? 20'000 : 1'000));
      Send(std::move(settle), std::move(nacks));
    } else if (dice < 92) {
      to_ack_late_.push_back(std::move(settle));
    }  // else its consumer is dead
  }
  if (!to_ack_late_.empty() && random_.Chance(0.2)) {
    Settle late = std::move(to_ack_late_.front());
    to_ack_late_.erase(to_ack_late_.begin());
    late.is_ack = true;
    Send(std::move(late), std::nullopt);
  }
}

// An Ack may be repeated.
void QueueHistory::HearOfSettles() {
  std::vector<Settle> again;
  std::erase_if(settles_, [&](const std::shared_ptr<Settle>& settle) {
    if (!settle->outcome) return false;
    if (settle->is_ack && !settle->outcome->ok()) {
      Settle repeat;
      repeat.text = settle->text;
      repeat.token = settle->token;
      repeat.is_ack = true;
      repeat.was_unknown = settle->was_unknown || HasReason(settle->outcome->status(), Reason::kOutcomeUnknown);
      again.push_back(std::move(repeat));
    }
    return true;
  });
  for (Settle& repeat : again) Send(std::move(repeat), std::nullopt);
}

// ---- A history

void QueueHistory::Step() {
  SendAppends(seconds(15));
  if (random_.Chance(0.4)) Dequeue();
  PassTime();
  HearOfAppends();
  WorkThroughInbox();
  HearOfSettles();
}

// As the owner says.
std::int64_t QueueHistory::MessagesLeft() {
  const std::optional<OwnerView> owner = ReadOwnerNow();
  if (!owner || owner->state != OwnerView::State::kProcess) return -1;
  for (std::size_t slot = 0; slot < kReplicas; ++slot) {
    if (slots_[slot].replica->process() != owner->process) continue;
    const std::shared_ptr<QueueEngine> queue = queues_[slot];
    const auto stats = RunOn(environment_, queue, queue->GetStats());
    return stats.ok() ? stats->counts.total() : -1;
  }
  return -1;
}

bool QueueHistory::IsAllDone() { return settles_.empty() && inbox_.empty() && MessagesLeft() == 0; }

void QueueHistory::Judge() {
  if (MessagesLeft() != 0) Violate("G2: messages are never delivered");
  if (!settles_.empty()) Violate("G10: a settling call is never answered");
  for (const auto& [text, life] : lives_) {
    const Fate fate = fates_[text];
    if (fate == Fate::kOk && life.given.empty()) Violate(Cat("G1: ", text, " was accepted and is lost"));
    if (!life.given.empty() && !life.acked_epoch && !life.is_perhaps_acked) {
      Violate(Cat("G2: ", text, " is gone without an ack"));
    }
    if (fate == Fate::kRefused && !life.given.empty()) Violate(Cat("G11: ", text, " was refused and is delivered"));
  }
}

}  // namespace postkeeper
