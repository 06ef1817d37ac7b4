#include "service/request_ids.h"

#include <algorithm>
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
  while (!expiries_.empty() && expiries_.top().written_at + window_ <= now) {
    const auto found = ids_.find(expiries_.top().id);
    // It may have been used again since.
    if (found != ids_.end() && found->second.written && found->second.written_at + window_ <= now) ids_.erase(found);
    expiries_.pop();
  }
}

RequestIds::Entered RequestIds::Enter(const IdHash& id, Done& done) {
  Expire();
  auto found = ids_.find(id);
  if (found == ids_.end()) {
    if (ids_.size() >= ids_max_) return Entered::kFull;
    ids_.try_emplace(id);
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
    unknown_repeated_.push_back(id);
  }
  return Entered::kKnown;
}

void RequestIds::Finish(const IdHash& id, const absl::StatusOr<Appended>& outcome) {
  auto found = ids_.find(id);
  if (found == ids_.end() || found->second.written) return;
  Entry& entry = found->second;
  std::vector<Done> waiting = std::exchange(entry.waiting, {});
  if (outcome.ok()) {
    SetWritten(id, entry, *outcome, environment_.Now());
  } else if (HasReason(outcome.status(), Reason::kOutcomeUnknown) && !IsMutated(Mutation::kForgetRequestId)) {
    entry.is_unknown = true;
  } else {
    ids_.erase(found);  // not written: the next repeat writes
  }
  for (Done& done : waiting) done(outcome);
}

void RequestIds::SetWritten(const IdHash& id, Entry& entry, const Appended& appended, Instant written_at) {
  entry.written = appended;
  entry.written_at = written_at;
  expiries_.push({written_at, id});
}

Instant RequestIds::Learn(const IdHash& id, const Appended& appended, Instant written_at) {
  const auto known = ids_.find(id);
  if (known != ids_.end() && known->second.written) {
    const Entry& entry = known->second;
    if (entry.written->writer == appended.writer) return std::max(entry.written_at, written_at);
    if (entry.written_at >= written_at) return written_at;  // this was an earlier use of the same id
  }
  if (written_at + window_ <= environment_.Now()) return written_at;
  Entry& entry = ids_[id];
  SetWritten(id, entry, appended, written_at);
  for (Done& done : std::exchange(entry.waiting, {})) done(appended);
  return written_at;
}

// Answers those who have waited for a fate that is still not known.
void RequestIds::LosePatience() {
  for (const IdHash& id : std::exchange(unknown_repeated_, {})) {
    auto found = ids_.find(id);
    if (found == ids_.end() || !found->second.is_unknown || found->second.written) continue;
    const absl::Status unknown =
        MakeError(Reason::kOutcomeUnknown, "ZooKeeper has not yet said whether the messages of this request_id are in");
    for (Done& done : std::exchange(found->second.waiting, {})) done(unknown);
  }
}

}  // namespace postkeeper
