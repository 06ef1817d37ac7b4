#include "service/request_ids.h"

#include "zkstore/errors.h"

namespace postkeeper {

void RequestIds::Expire(Instant now) {
  while (!answered_.empty() && answered_.front().first + window_ <= now) {
    auto expired = ids_.find(answered_.front().second);
    // It may have been forgotten and entered again since.
    if (expired != ids_.end() && expired->second.answered_at == answered_.front().first) ids_.erase(expired);
    answered_.pop_front();
  }
}

RequestIds::Entered RequestIds::Enter(const std::string& request_id, Instant now, Done& done) {
  Expire(now);
  auto found = ids_.find(request_id);
  if (found != ids_.end()) {
    if (found->second.is_answered) {
      Done answer = std::move(done);
      answer(found->second.answer);
    } else {
      found->second.waiting.push_back(std::move(done));
    }
    return Entered::kKnown;
  }
  if (ids_.size() >= ids_max_) return Entered::kFull;
  ids_.try_emplace(request_id);
  return Entered::kNew;
}

void RequestIds::Finish(const std::string& request_id, const absl::StatusOr<Appended>& outcome, Instant now) {
  auto found = ids_.find(request_id);
  if (found == ids_.end() || (found->second.is_answered && found->second.answer.ok())) return;
  std::vector<Done> waiting = std::move(found->second.waiting);
  found->second.waiting.clear();
  if (outcome.ok() || HasReason(outcome.status(), Reason::kOutcomeUnknown)) {
    if (!found->second.is_answered) {
      found->second.answered_at = now;
      answered_.emplace_back(now, request_id);
    }
    found->second.is_answered = true;
    found->second.answer = outcome;
  } else {
    ids_.erase(found);  // not written: the next repeat writes
  }
  for (Done& done : waiting) done(outcome);
}

}  // namespace postkeeper
