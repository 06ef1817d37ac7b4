// The part of QueueEngine that acts on lease tokens.
#include <algorithm>

#include "absl/algorithm/container.h"
#include "service/queue_engine.h"
#include "zkstore/errors.h"
#include "zkstore/mutation.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

// How long a token may wait for its message to be read after a take-over.
constexpr Duration kReadPatience = std::chrono::seconds(10);

}  // namespace

Task<absl::StatusOr<std::vector<SettleFailure>>> QueueEngine::Settle(SettleOrders orders) {
  const std::shared_ptr<QueueEngine> self = shared_from_this();
  if (!ownership_->is_held()) {
    if (absl::Status status = co_await WaitUntilServing(kOwnerPatience); !status.ok()) co_return status;
  }
  const Named named = NamedBy(orders);
  if (named.last_epoch > static_cast<std::uint64_t>(ownership_->held().epoch)) {
    if (absl::Status status = co_await ownership_->Confirm(); !status.ok()) co_return status;
  }
  if (named.last >= followed_) {
    if (absl::Status status = co_await WaitUntilRead(named.last); !status.ok()) co_return status;
  }
  Settling settling;
  SettleAcks(orders.ack_tokens, settling);
  for (const CheckedNacks& nacks : orders.nacks) SettleNacks(nacks, settling);
  for (const CheckedExtensions& extensions : orders.extensions) SettleExtensions(extensions, settling);
  Dispatch();
  if (!settling.changes.empty() && IsMutated(Mutation::kAckBeforeWrite)) {
    cursor_->Write(std::move(settling.changes), [](const absl::Status&) {});
  } else if (!settling.changes.empty()) {
    if (absl::Status status = co_await cursor_->WriteAndWait(std::move(settling.changes)); !status.ok()) {
      co_return status;
    }
  }
  if (settling.changes.empty() && SaysStale(settling)) {
    // What this replica remembers is no proof if it has been deposed: the next owner may have accepted this very token.
    if (absl::Status status = co_await cursor_->Fence(); !status.ok()) co_return status;
  }
  co_return std::move(settling.failures);
}

bool QueueEngine::SaysStale(const Settling& settling) {
  return absl::c_any_of(settling.failures,
                        [](const SettleFailure& failure) { return failure.error == SettleError::kStaleLease; });
}

QueueEngine::Named QueueEngine::NamedBy(const SettleOrders& orders) const {
  Named named;
  auto look = [&named, this](const std::vector<std::string>& tokens) {
    for (const std::string& text : tokens) {
      const std::optional<LeaseToken> token = DecodeLeaseToken(text);
      if (!token || token->source != entry_.uid) continue;
      named.last = std::max(named.last, token->position);
      named.last_epoch = std::max(named.last_epoch, token->epoch);
    }
  };
  look(orders.ack_tokens);
  for (const CheckedNacks& nacks : orders.nacks) look(nacks.lease_tokens);
  for (const CheckedExtensions& extensions : orders.extensions) look(extensions.lease_tokens);
  return named;
}

// A token may come before its message has been read here: after a take-over, or when a replica that does not know yet
// that it was deposed has appended and delivered the message.
Task<absl::Status> QueueEngine::WaitUntilRead(Position last) {
  const bool is_behind_tail = has_reached_tail_;
  if (is_behind_tail) {
    const absl::StatusOr<Position> tail = co_await reader_->FindTail();
    if (!tail.ok()) co_return tail.status();
    if (last >= *tail) co_return absl::OkStatus();  // there is no such message
    reader_->Ring();
  }
  const Instant deadline = context_.environment.Now() + kReadPatience;
  while (last >= followed_ && (is_behind_tail || !has_reached_tail_)) {
    const Instant now = context_.environment.Now();
    if (now >= deadline || !ownership_->is_held()) co_return StillBeingRead();
    co_await follow_progress_.WaitFor(std::min<Duration>(deadline - now, std::chrono::milliseconds(100)));
  }
  co_return absl::OkStatus();
}

void QueueEngine::Fail(Settling& settling, const std::string& token, SettleError error, std::string_view detail) {
  settling.failures.push_back({token, error, std::string(detail)});
}

void QueueEngine::Fail(Settling& settling, const std::string& token, Dispatcher::Outcome outcome) {
  switch (outcome) {
    case Dispatcher::Outcome::kOk:
      return;
    case Dispatcher::Outcome::kAlreadySettled:
      return Fail(settling, token, SettleError::kAlreadySettled, "the message is settled");
    case Dispatcher::Outcome::kStaleLease:
      return Fail(settling, token, SettleError::kStaleLease, "the lease has ended, and it is not the latest");
    case Dispatcher::Outcome::kLeaseLimit:
      return Fail(settling, token, SettleError::kLeaseLimit, "no lease lasts longer than 12 h after the delivery");
  }
}

// Returns the token if it may be looked up in the dispatcher.
std::optional<LeaseToken> QueueEngine::Admit(const std::string& text, Settling& settling) {
  const std::optional<LeaseToken> token = DecodeLeaseToken(text);
  if (!token) {
    Fail(settling, text, SettleError::kMalformedToken, "this is not a lease token, or it is damaged");
    return std::nullopt;
  }
  if (token->source != entry_.uid) {
    Fail(settling, text, SettleError::kMalformedToken, "this lease token belongs to another source");
    return std::nullopt;
  }
  const std::uint64_t epoch = static_cast<std::uint64_t>(ownership_->held().epoch);
  if (token->epoch > epoch || token->position >= followed_) {
    Fail(settling, text, SettleError::kMalformedToken, "this lease token names no delivery of this queue");
    return std::nullopt;
  }
  if (!dispatcher_->Contains(token->position)) {
    // It is gone from memory, but perhaps not yet from the store: the answer waits for the write.
    settling.changes.push_back({token->position, std::nullopt});
    Fail(settling, text, SettleError::kAlreadySettled, "the message is settled");
    return std::nullopt;
  }
  const bool is_of_this_reign = token->epoch >= static_cast<std::uint64_t>(first_epoch_);
  if (!is_of_this_reign && !AdmitEarlierEpoch(*token, text, settling)) return std::nullopt;
  return token;
}

bool QueueEngine::CountsFromEarlierEpoch(const LeaseToken& token) const {
  const auto epoch = static_cast<std::int64_t>(token.epoch);
  const bool is_of_reign_before = first_epoch_before_ <= epoch && epoch < first_epoch_;
  const bool is_stored = token.number >= 2 && token.number == cursor_->settled().NotesOf(token.position).number;
  const auto adopted = adopted_.find(token.position);
  const bool is_adopted =
      adopted != adopted_.end() && adopted->second.number == token.number && adopted->second.epochs.Contains(epoch);
  return is_of_reign_before || is_stored || is_adopted;
}

// A token of an earlier owner counts only while this owner has not given the message out, and: its number is the stored
// one, or its lease was handed over, or it is of the reign directly before this one.
bool QueueEngine::AdmitEarlierEpoch(const LeaseToken& token, const std::string& text, Settling& settling) {
  const std::optional<Dispatcher::Notes> notes = dispatcher_->NotesOf(token.position);
  if (notes->was_given_out || !CountsFromEarlierEpoch(token)) {
    Fail(settling, text, SettleError::kStaleLease, "the queue has changed its owner since");
    return false;
  }
  const auto epoch = static_cast<std::int64_t>(token.epoch);
  if (notes->number == token.number) return true;
  const Duration lease = std::get<QueueSettings>(entry_.settings).lease_duration;
  const Dispatcher::Outcome outcome = AdoptLease(token.position, {token.number, {epoch, epoch}}, lease);
  if (outcome == Dispatcher::Outcome::kOk) return true;
  Fail(settling, text, outcome);
  return false;
}

void QueueEngine::SettleAcks(const std::vector<std::string>& tokens, Settling& settling) {
  const Instant now = context_.environment.Now();
  std::int64_t acked = 0;
  for (const std::string& text : tokens) {
    const std::optional<LeaseToken> token = Admit(text, settling);
    if (!token) continue;
    const std::optional<Instant> enqueued = dispatcher_->EnqueuedAt(token->position);
    const Dispatcher::Outcome outcome = dispatcher_->Settle(token->position, token->number, now);
    Fail(settling, text, outcome);
    if (outcome != Dispatcher::Outcome::kOk) continue;
    ReturnCredit(token->position, token->number);
    settling.changes.push_back({token->position, std::nullopt});
    if (enqueued) metrics_->TimeInQueue(now - *enqueued);
    ++acked;
  }
  if (acked == 0) return;
  settled_.Add(acked, now);
  metrics_->Acked(acked);
}

void QueueEngine::SettleNacks(const CheckedNacks& nacks, Settling& settling) {
  const Instant now = context_.environment.Now();
  std::int64_t nacked = 0;
  const bool releases = nacks.kind == NackKind::kRelease;
  for (const std::string& text : nacks.lease_tokens) {
    const std::optional<LeaseToken> token = Admit(text, settling);
    if (!token) continue;
    const Dispatcher::Outcome outcome =
        releases ? dispatcher_->Release(token->position, token->number, now, nacks.delay.value_or(Duration::zero()),
                                        nacks.reason)
                 : dispatcher_->Nack(token->position, token->number, nacks.delay, nacks.reason, now);
    Fail(settling, text, outcome);
    if (outcome != Dispatcher::Outcome::kOk) continue;
    ReturnCredit(token->position, token->number);
    if (!releases || nacks.delay) settling.changes.push_back(NotesFor(token->position));
    ++nacked;
  }
  if (nacked > 0) metrics_->Nacked(releases ? NackedAs::kRelease : NackedAs::kRetry, nacked);
}

void QueueEngine::SettleExtensions(const CheckedExtensions& extensions, Settling& settling) {
  const Instant now = context_.environment.Now();
  const Duration lease = extensions.lease.value_or(std::get<QueueSettings>(entry_.settings).lease_duration);
  for (const std::string& text : extensions.lease_tokens) {
    const std::optional<LeaseToken> token = Admit(text, settling);
    if (token) Fail(settling, text, dispatcher_->Extend(token->position, token->number, lease, now));
  }
}

}  // namespace postkeeper
