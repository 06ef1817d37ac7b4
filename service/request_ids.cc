#include "service/request_ids.h"

#include <utility>

#include "zkstore/errors.h"
#include "zkstore/mutation.h"

namespace postkeeper {

RequestIds::RequestIds(Environment& environment, asio::any_io_executor strand, std::size_t ids_max, Duration window)
    : environment_(environment),
      ids_max_(ids_max),
      window_(window),
      patience_timer_(environment.MakeTimer(std::move(strand))) {}

void RequestIds::Expire() {
  const Instant now = environment_.Now();
  while (!written_.empty() && written_.front().first + window_ <= now) {
    ids_.erase(written_.front().second);
    written_.pop_front();
  }
}

RequestIds::Entered RequestIds::Enter(const std::string& request_id, Done& done) {
  Expire();
  auto found = ids_.find(request_id);
  if (found == ids_.end()) {
    if (ids_.size() >= ids_max_) return Entered::kFull;
    ids_.try_emplace(request_id);
    return Entered::kNew;
  }
  Entry& entry = found->second;
  if (entry.written) {
    Done answer = std::move(done);
    answer(*entry.written);
    return Entered::kKnown;
  }
  entry.waiting.push_back(std::move(done));
  if (entry.is_unknown) {
    if (unknown_repeated_.empty()) {
      patience_timer_->Start(kPatience, [weak = weak_from_this()] {
        if (const std::shared_ptr<RequestIds> self = weak.lock()) self->LosePatience();
      });
    }
    unknown_repeated_.push_back(request_id);
  }
  return Entered::kKnown;
}

void RequestIds::Finish(const std::string& request_id, const absl::StatusOr<Appended>& outcome) {
  auto found = ids_.find(request_id);
  if (found == ids_.end() || found->second.written) return;
  Entry& entry = found->second;
  std::vector<Done> waiting = std::exchange(entry.waiting, {});
  if (outcome.ok()) {
    entry.written = *outcome;
    written_.emplace_back(environment_.Now(), request_id);
  } else if (HasReason(outcome.status(), Reason::kOutcomeUnknown) && !IsMutated(Mutation::kForgetRequestId)) {
    entry.is_unknown = true;
  } else {
    ids_.erase(found);  // not written: the next repeat writes
  }
  for (Done& done : waiting) done(outcome);
}

// Answers those who have waited for a fate that is still not known.
void RequestIds::LosePatience() {
  for (const std::string& request_id : std::exchange(unknown_repeated_, {})) {
    auto found = ids_.find(request_id);
    if (found == ids_.end() || !found->second.is_unknown || found->second.written) continue;
    const absl::Status unknown =
        MakeError(Reason::kOutcomeUnknown, "ZooKeeper has not yet said whether the messages of this request_id are in");
    for (Done& done : std::exchange(found->second.waiting, {})) done(unknown);
  }
}

}  // namespace postkeeper
