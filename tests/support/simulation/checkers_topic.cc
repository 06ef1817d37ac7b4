// The checkers of what a topic's subscribers see, and of its trim.
#include <algorithm>

#include "tests/support/simulation/checkers.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

// How late a trim may be when all is well.
constexpr Duration kTrimSlack = std::chrono::seconds(15);

// The messages of one topic, from its end on: what stands behind each batch, it included.
template <typename Function>
void ForEachBatchFromTheEnd(const History& history, const Uid& uid, const Function& function) {
  std::vector<std::pair<Position, std::vector<const History::Stored*>>> batches;
  for (auto at = history.stored.lower_bound({uid, Position()}); at != history.stored.end() && at->first.first == uid;
       ++at) {
    const Position batch = at->first.second.BatchStart();
    if (batches.empty() || batches.back().first != batch) batches.push_back({batch, {}});
    batches.back().second.push_back(&at->second);
  }
  std::int64_t behind = 0;
  for (auto batch = batches.rbegin(); batch != batches.rend(); ++batch) {
    behind += static_cast<std::int64_t>(batch->second.size());
    function(batch->first, *batch->second.front(), static_cast<std::int64_t>(batch->second.size()), behind);
  }
}

bool WasTold(const History::Subscriber& subscriber, Position at) {
  return std::any_of(subscriber.told_trimmed.begin(), subscriber.told_trimmed.end(),
                     [&](const auto& told) { return told.first < at && at <= told.second; });
}

void CheckSubscriber(const History& history, const Uid& uid, const History::Subscriber& subscriber, Verdict& verdict) {
  for (auto at = history.stored.lower_bound({uid, Position()}); at != history.stored.end() && at->first.first == uid;
       ++at) {
    const Position position = at->first.second;
    const History::Stored& stored = at->second;
    const auto got = subscriber.got.find(position);
    verdict.Judge("G9");
    if (got != subscriber.got.end() && got->second != stored.text) {
      verdict.Violate(stored.created, Cat("G4: ", subscriber.name, " gets ", got->second, " instead of ", stored.text));
    }
    if (!stored.deleted && WasTold(subscriber, position)) {
      verdict.Violate(stored.created,
                      Cat("G9: ", subscriber.name, " is told that ", stored.text, " was trimmed, and it is there"));
    }
    if (subscriber.is_from_earliest && !stored.deleted && position <= subscriber.first) {
      verdict.Violate(stored.created, Cat("G9: ", subscriber.name, " begins behind ", stored.text));
    }
    if (position <= subscriber.first || got != subscriber.got.end() || WasTold(subscriber, position)) continue;
    verdict.Violate(stored.created,
                    Cat("G9: ", subscriber.name, " never gets ", stored.text, " at ", position.DebugString()));
  }
}

}  // namespace

// G9: each subscriber got every message behind its position, once and in order (that is seen when it comes), or was
// told which are gone.
void CheckSubscribers(const History& history, Verdict& verdict) {
  for (const auto& subscriber : history.subscribers) {
    const std::optional<Uid> uid = history.UidOf(subscriber->topic);
    if (!subscriber->began) {
      verdict.Violate(subscriber->asked, Cat("G9: ", subscriber->name, " never begins"));
      continue;
    }
    CheckSubscriber(history, *uid, *subscriber, verdict);
    for (const auto& append : history.appends) {
      const auto place = history.places.find(append->texts.front());
      const bool is_later = append->log == subscriber->topic && append->fate == History::Fate::kOk &&
                            *subscriber->began < append->sent && place != history.places.end();
      if (!is_later || place->second[0].second > subscriber->first) continue;
      verdict.Violate(append->sent, Cat("G9: ", subscriber->name, " begins behind ", append->texts.front(),
                                        ", which was sent later"));
    }
  }
}

// G2, G9: a topic is trimmed from the front, and no more than its bounds asked for at that moment.
void CheckTrimNeeded(const History& history, Verdict& verdict) {
  for (const auto& [uid, log] : history.logs) {
    if (log.is_queue) continue;
    std::int64_t kept = 0;
    const auto& settings = log.topic;
    std::vector<std::uint64_t> created;  // of all messages from this batch on
    ForEachBatchFromTheEnd(
        history, uid, [&](Position at, const History::Stored& first, std::int64_t messages, std::int64_t behind) {
          verdict.Judge("G2");
          created.insert(created.end(), static_cast<std::size_t>(messages), first.created.number);
          if (!first.deleted) {
            if (kept + messages != behind)
              verdict.Violate(first.created, Cat("G9: a batch is missing behind ", at.DebugString()));
            kept = behind;
            return;
          }
          const auto behind_then = std::count_if(created.begin(), created.end(),
                                                 [&](std::uint64_t number) { return number < first.deleted->number; });
          if (behind_then <= settings.max_messages && first.delete_time - first.create_time < settings.retention) {
            verdict.Violate(*first.deleted,
                            Cat("G2: the batch at ", at.DebugString(), " of ", log.name, " was trimmed without need"));
          }
        });
  }
}

// G10: and no less.
void CheckTrimDone(const History& history, Verdict& verdict) {
  for (const auto& [uid, log] : history.logs) {
    if (log.is_queue) continue;
    const auto& settings = log.topic;
    ForEachBatchFromTheEnd(
        history, uid, [&](Position, const History::Stored& first, std::int64_t messages, std::int64_t behind) {
          verdict.Judge("G10");
          if (first.deleted) return;
          if (history.ended_at - first.create_time > settings.retention + kTrimSlack) {
            verdict.Violate(first.created, Cat("G10: an old batch of ", log.name, " is not trimmed"));
          }
          if (behind > settings.max_messages && behind > messages) {
            verdict.Violate(first.created, Cat("G10: ", log.name, " keeps more messages than it may"));
          }
        });
  }
}

}  // namespace postkeeper
