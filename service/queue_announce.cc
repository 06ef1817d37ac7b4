// The part of QueueEngine that tells who is the owner now, and takes what streams come back with to the next one.
#include <algorithm>
#include <utility>

#include "service/logging.h"
#include "service/queue_engine.h"
#include "zkstore/errors.h"
#include "zkstore/mutation.h"

namespace postkeeper {

void QueueEngine::BeginReignOfAnnouncements(const OwnerView& held) {
  announced_.clear();
  announced_until_.reset();
  has_given_out_ = false;
  // One that let go has handed its leases over; were they too many, some are known to their holders only.
  const bool is_complete = !held.was_let_down && cursor_->handed_over().size() < Cursor::kHandedOverLeasesMax;
  const bool is_first = held.epoch <= 1;
  if (!is_complete && !is_first) announced_until_ = context_.environment.Now() + kAnnouncementPatience;
  TellObservers("");
}

bool QueueEngine::AwaitsAnnouncements() const {
  return announced_until_ && context_.environment.Now() < *announced_until_ && !IsMutated(Mutation::kGiveUnannounced);
}

void QueueEngine::PrepareToLetGo() {
  if (announced_until_ && !has_given_out_) cursor_->SetOwner(AsNeverServed(ownership_->held()));
}

void QueueEngine::Announce(const Consumer& consumer, const HeldLease& held) {
  const Announced announced{held.token, held.bytes, context_.environment.Now() + held.remaining, consumer.id};
  if (held.token.source != entry_.uid || held.token.position < followed_) return Adopt(announced);
  const auto age = [](const LeaseToken& token) { return std::pair(token.epoch, token.number); };
  const auto known = announced_.find(held.token.position);
  if (known == announced_.end()) {
    if (announced_.size() >= kAnnouncedMax) return AddBack(consumer.id, held.bytes);
    announced_.emplace(held.token.position, announced);
    return;
  }
  Announced older = announced;
  if (age(known->second.token) <= age(held.token)) std::swap(known->second, older);
  if (!consumers_.contains(older.consumer) || consumers_.at(older.consumer).is_credit_manual) return;
  AddBack(older.consumer, older.bytes);
}

// Once the messages before this position are read.
void QueueEngine::AdoptAnnounced(Position before) {
  while (!announced_.empty() && announced_.begin()->first < before) {
    const Announced announced = announced_.begin()->second;
    announced_.erase(announced_.begin());
    Adopt(announced);
  }
}

void QueueEngine::Adopt(const Announced& announced) {
  const auto consumer = consumers_.find(announced.consumer);
  const bool is_counted = consumer != consumers_.end() && !consumer->second.is_credit_manual;
  if (!TryToAdopt(announced)) {
    if (is_counted) AddBack(announced.consumer, announced.bytes);
    return;
  }
  // It may have been another stream's until now.
  ReturnCredit(announced.token.position, announced.token.number);
  if (is_counted) {
    const auto bytes = static_cast<std::int32_t>(announced.bytes);  // at most kCreditBytesMax
    stream_leases_[announced.token.position] = {announced.consumer, announced.token.number, bytes};
  }
  if (consumer != consumers_.end() && consumer->second.keeps_leases) {
    const Instant half = context_.environment.Now() + consumer->second.lease / 2;
    extend_at_ = std::min(extend_at_.value_or(half), half);
  }
}

bool QueueEngine::TryToAdopt(const Announced& announced) {
  const LeaseToken& token = announced.token;
  const Instant now = context_.environment.Now();
  // The stream has kept it since, if it keeps its leases.
  const auto consumer = consumers_.find(announced.consumer);
  const bool is_kept = consumer != consumers_.end() && consumer->second.keeps_leases;
  const Duration left = is_kept ? consumer->second.lease : announced.deadline - now;
  if (token.source != entry_.uid || left <= Duration::zero() || IsMutated(Mutation::kForgetAnnounced)) return false;
  const std::optional<Dispatcher::Notes> notes = dispatcher_->NotesOf(token.position);
  const auto epoch = static_cast<std::int64_t>(token.epoch);
  if (!notes || epoch > ownership_->held().epoch) return false;
  if (epoch >= first_epoch_) {
    return dispatcher_->Rebind(token.position, token.number, left, announced.consumer, now) == Dispatcher::Outcome::kOk;
  }
  if (notes->was_given_out || !CountsFromEarlierEpoch(token)) return false;
  const Dispatcher::Outcome outcome = dispatcher_->Adopt(token.position, token.number, left, announced.consumer, now);
  if (outcome != Dispatcher::Outcome::kOk) return false;
  const auto adopted = adopted_.find(token.position);
  const bool is_known = adopted != adopted_.end() && adopted->second.number == token.number;
  if (!is_known) adopted_[token.position] = {token.number, {epoch, epoch}};
  return true;
}

// ---- News of the owner

void QueueEngine::EndConsumersOfReign() {
  std::vector<std::function<void(absl::Status)>> ends;
  for (auto consumer = consumers_.begin(); consumer != consumers_.end();) {
    if (!consumer->second.callbacks.ends_with_reign) {
      ++consumer;
      continue;
    }
    ends.push_back(std::move(consumer->second.callbacks.on_end));
    LeaveTurn(consumer->second);
    consumer = consumers_.erase(consumer);
  }
  const absl::Status why = MakeError(Reason::kNoOwner, "this replica works for it no longer", {.resource = full_name_});
  for (const auto& end : ends) end(why);
}

QueueEngine::ObserverId QueueEngine::AddOwnerObserver(OwnerNews on_news) {
  observers_.emplace(++last_observer_, std::move(on_news));
  return last_observer_;
}

void QueueEngine::RemoveOwnerObserver(ObserverId observer) { observers_.erase(observer); }

void QueueEngine::TellObservers(const std::string& owner) {
  std::vector<OwnerNews> tellings;
  tellings.reserve(observers_.size());
  for (const auto& [id, tell] : observers_) tellings.push_back(tell);
  for (const OwnerNews& tell : tellings) tell(owner);
}

}  // namespace postkeeper
