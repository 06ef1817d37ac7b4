#include "service/append_ids.h"

#include <algorithm>
#include <utility>

#include "zkstore/errors.h"
#include "zkstore/mutation.h"

namespace postkeeper {
namespace {

// Without those that are duplicates.
void TakeOut(const std::vector<Duplicate>& duplicates, CheckedAppend& append) {
  std::vector<NewMessage> left;
  left.reserve(append.messages.size() - duplicates.size());
  auto duplicate = duplicates.begin();
  for (std::uint32_t i = 0; i < append.messages.size(); ++i) {
    NewMessage& message = append.messages[i];
    if (duplicate != duplicates.end() && duplicate->index == i) {
      append.message_bytes -= static_cast<std::int64_t>(message.bytes.size());
      --append.dedup_ids;
      ++duplicate;
    } else {
      left.push_back(std::move(message));
    }
  }
  append.messages = std::move(left);
}

}  // namespace

AppendIds::AppendIds(Environment& environment, asio::any_io_executor strand, std::size_t ids_max, Duration window)
    : environment_(environment),
      ids_max_(ids_max),
      window_(window),
      patience_timer_(environment.MakeTimer(std::move(strand))) {}

// ---- What is known

void AppendIds::Expire() {
  const Instant now = environment_.Now();
  while (!expiries_.empty() && expiries_.top().written_at + window_ <= now) {
    const auto found = ids_.find(expiries_.top().id);
    // It may have been used again since.
    if (found != ids_.end() && found->second.written && found->second.written_at + window_ <= now) Erase(found);
    expiries_.pop();
  }
}

void AppendIds::Erase(Ids::iterator entry) {
  SetDuplicates(entry->second, 0);
  ids_.erase(entry);
}

void AppendIds::SetDuplicates(Entry& entry, std::uint32_t duplicates) {
  duplicates_ += duplicates;
  duplicates_ -= std::exchange(entry.duplicates, duplicates);
}

void AppendIds::SetWritten(const IdHash& id, Entry& entry, const Appended& appended, Instant written_at) {
  entry.written = appended;
  entry.written_at = written_at;
  SetDuplicates(entry, appended.duplicate_count());
  expiries_.push({written_at, id});
}

Instant AppendIds::Learn(const IdHash& id, const Appended& appended, Instant written_at) {
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

// ---- Calls

std::optional<IdHash> AppendIds::FindOpen(const CheckedAppend& append, bool looks_at_request_id) const {
  if (!append.request_id.empty() && (append.dedup_ids > 0 || looks_at_request_id)) {
    const IdHash request_id = HashOfRequestId(append.request_id);
    const auto found = ids_.find(request_id);
    if (found != ids_.end() && looks_at_request_id && !found->second.written) return request_id;
    if (found != ids_.end()) return std::nullopt;
  }
  if (append.dedup_ids == 0) return std::nullopt;
  for (const NewMessage& message : append.messages) {
    if (!message.dedup_id) continue;
    const auto found = ids_.find(*message.dedup_id);
    if (found != ids_.end() && !found->second.written) return *message.dedup_id;
  }
  return std::nullopt;
}

AppendIds::Sorted AppendIds::Sort(const CheckedAppend& append) const {
  Sorted sorted;
  absl::flat_hash_map<IdHash, std::uint32_t> own;
  std::uint32_t written = 0;
  for (std::uint32_t i = 0; i < append.messages.size(); ++i) {
    const std::optional<IdHash>& id = append.messages[i].dedup_id;
    const auto known = id ? ids_.find(*id) : ids_.end();
    sorted.has_open = sorted.has_open || (known != ids_.end() && !known->second.written);
    if (known != ids_.end() && known->second.written) {
      const Appended& first = *known->second.written;
      sorted.duplicates.push_back({i, first.writer, first.first_index});
      continue;
    }
    if (id) {
      const auto [earlier, is_first] = own.try_emplace(*id, written);
      if (!is_first) {
        sorted.duplicates.push_back({i, Writer{}, earlier->second});
        continue;
      }
      sorted.fresh.push_back({*id, written});
    }
    ++written;
  }
  return sorted;
}

AppendIds::Entered AppendIds::Enter(CheckedAppend& append, Done& done, Held& held) {
  Expire();
  std::optional<IdHash> request_id;
  if (!append.request_id.empty()) {
    request_id = HashOfRequestId(append.request_id);
    if (const auto found = ids_.find(*request_id); found != ids_.end()) {
      Wait(found->first, found->second, std::move(done));
      return Entered::kKnown;
    }
  }
  Sorted sorted;
  if (append.dedup_ids > 0) sorted = Sort(append);
  // A request_id that was known when it was asked for, and has just become too old.
  if (sorted.has_open) return Entered::kOpen;
  const auto duplicate_count = static_cast<std::uint32_t>(sorted.duplicates.size());
  const bool is_nothing_left = duplicate_count == append.messages.size();
  const std::size_t room = is_nothing_left ? 0 : sorted.fresh.size() + (request_id ? 1 + duplicate_count : 0);
  if (size() + room > ids_max_) return Entered::kFull;

  if (duplicate_count > 0) {
    TakeOut(sorted.duplicates, append);
    held.duplicates = std::make_shared<const std::vector<Duplicate>>(std::move(sorted.duplicates));
  }
  if (is_nothing_left) {
    Appended answer;
    answer.duplicates = std::move(held.duplicates);
    std::exchange(done, nullptr)(std::move(answer));
    return Entered::kKnown;
  }
  if (request_id) SetDuplicates(ids_[*request_id], duplicate_count);
  for (const Held::Message& message : sorted.fresh) ids_.try_emplace(message.dedup_id);
  held.request_id = request_id;
  held.messages = std::move(sorted.fresh);
  return Entered::kNew;
}

void AppendIds::Finish(const Held& held, const absl::StatusOr<Appended>& outcome) {
  std::vector<Done> told;
  if (held.request_id) FinishOne(*held.request_id, outcome, IsMutated(Mutation::kForgetRequestId), told);
  for (const Held::Message& message : held.messages) {
    absl::StatusOr<Appended> its_own = outcome;
    if (outcome.ok()) its_own = Appended{outcome->writer, outcome->first_index + message.offset, 1};
    FinishOne(message.dedup_id, its_own, IsMutated(Mutation::kForgetDedupId), told);
  }
  // Only now, since a call may wait for one of these ids and have others of them.
  for (Done& done : told) done(outcome);
}

void AppendIds::FinishOne(const IdHash& id, const absl::StatusOr<Appended>& outcome, bool is_forgotten_if_unknown,
                          std::vector<Done>& told) {
  const auto found = ids_.find(id);
  if (found == ids_.end() || found->second.written) return;
  Entry& entry = found->second;
  for (Done& done : std::exchange(entry.waiting, {})) told.push_back(std::move(done));
  if (outcome.ok()) {
    SetWritten(id, entry, *outcome, environment_.Now());
  } else if (HasReason(outcome.status(), Reason::kOutcomeUnknown) && !is_forgotten_if_unknown) {
    entry.is_unknown = true;
  } else {
    Erase(found);  // not written: the next call writes
  }
}

// ---- Waiting

void AppendIds::WaitFor(const IdHash& id, Done done) {
  const auto found = ids_.find(id);
  if (found != ids_.end()) Wait(id, found->second, std::move(done));
}

void AppendIds::Wait(const IdHash& id, Entry& entry, Done done) {
  if (entry.written) return done(*entry.written);
  entry.waiting.push_back(std::move(done));
  if (!entry.is_unknown) return;
  if (unknown_repeated_.empty()) {
    patience_timer_->Start(kPatience, [weak = weak_from_this()] {
      if (const std::shared_ptr<AppendIds> self = weak.lock()) self->LosePatience();
    });
  }
  unknown_repeated_.push_back(id);
}

// Answers those who have waited for a fate that is still not known.
void AppendIds::LosePatience() {
  const absl::Status unknown =
      MakeError(Reason::kOutcomeUnknown, "ZooKeeper has not yet said whether what was sent with this id before is in");
  for (const IdHash& id : std::exchange(unknown_repeated_, {})) {
    auto found = ids_.find(id);
    if (found == ids_.end() || !found->second.is_unknown || found->second.written) continue;
    for (Done& done : std::exchange(found->second.waiting, {})) done(unknown);
  }
}

}  // namespace postkeeper
