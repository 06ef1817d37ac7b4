// The checkers of what queues and topics have in common, and the list of all.
#include "tests/support/simulation/checkers.h"

#include <algorithm>

#include "zkstore/text.h"

namespace postkeeper {
namespace {

using Fate = History::Fate;

// G1: what was accepted is in the store (what may take it from there is G2's).
void CheckDurable(const History& history, Verdict& verdict) {
  for (const auto& append : history.appends) {
    if (append->fate != Fate::kOk) continue;
    verdict.Judge("G1");
    for (const std::string& text : append->messages) {
      if (!history.places.contains(text))
        verdict.Violate(*append->returned, Cat("G1: ", text, " was accepted and is lost"));
    }
  }
}

void CheckNoLoss(const History& history, Verdict& verdict) {
  CheckQueuesEmpty(history, verdict);
  CheckTrimNeeded(history, verdict);
}

// G4: who sends a message that is written gets its id, whoever has written it.
void CheckMessageIds(const History& history, Verdict& verdict) {
  for (const auto& append : history.appends) {
    for (std::size_t i = 0; i < append->message_ids.size() && append->fate == Fate::kOk; ++i) {
      const auto places = history.places.find(append->messages[i]);
      if (places == history.places.end() || places->second.size() != 1) continue;
      verdict.Judge("G4");
      if (history.stored.at(places->second[0]).message_id == append->message_ids[i]) continue;
      verdict.Violate(*append->returned, Cat("G4: ", append->messages[i], " was given the id of another message"));
    }
  }
}

// G4: nothing is written twice; no run is longer than the window. That a repeat gets the first answer is judged by the
// client that repeats.
void CheckWrittenOnce(const History& history, Verdict& verdict) {
  CheckMessageIds(history, verdict);
  for (const auto& append : history.appends) {
    for (const std::string& text : append->texts) {
      const auto places = history.places.find(text);
      if (places == history.places.end()) continue;
      verdict.Judge("G4");
      if (places->second.size() == 1) continue;
      const auto& [uid, position] = places->second[1];
      verdict.Violate(history.stored.at(places->second[1]).created,
                      Cat("G4: ", text, " was written twice, the second time at ", position.DebugString()));
    }
  }
}

// G5, of the log: inside one call the order given; between calls, if the first had returned.
void CheckLogOrder(const History& history, Verdict& verdict) {
  std::map<Uid, std::vector<std::pair<const History::Append*, std::pair<Position, Position>>>> by_log;
  for (const auto& append : history.appends) {
    const bool is_clear =
        append->fate == Fate::kOk && std::all_of(append->texts.begin(), append->texts.end(), [&](const auto& text) {
          const auto found = history.places.find(text);
          return found != history.places.end() && found->second.size() == 1 && !history.borrowers.contains(text);
        });
    if (!is_clear) continue;  // G1 and G4 say so, or another call has written a part of it
    const History::Place first = history.places.at(append->texts.front())[0];
    Position last = first.second;
    for (std::size_t i = 1; i < append->texts.size(); ++i) {
      const Position next = history.places.at(append->texts[i])[0].second;
      verdict.Judge("G5");
      if (next <= last)
        verdict.Violate(*append->returned,
                        Cat("G5: ", append->texts[i], " stands before what its call sent before it"));
      last = next;
    }
    by_log[first.first].emplace_back(append.get(), std::pair(first.second, last));
  }
  for (auto& [uid, appends] : by_log) {
    // By the time of the answer, so that for each append the furthest position answered before it was sent is at hand.
    auto by_answer = appends;
    std::sort(by_answer.begin(), by_answer.end(),
              [](const auto& a, const auto& b) { return *a.first->returned < *b.first->returned; });
    std::sort(appends.begin(), appends.end(),
              [](const auto& a, const auto& b) { return a.first->sent < b.first->sent; });
    Position answered;
    std::string whose;
    std::size_t next = 0;
    for (const auto& [append, where] : appends) {
      for (; next < by_answer.size() && *by_answer[next].first->returned < append->sent; ++next) {
        if (by_answer[next].second.second <= answered) continue;
        answered = by_answer[next].second.second;
        whose = by_answer[next].first->texts.back();
      }
      verdict.Judge("G5");
      if (where.first <= answered) {
        verdict.Violate(append->sent, Cat("G5: ", append->texts.front(), " stands before ", whose,
                                          ", which had been accepted when it was sent"));
      }
    }
  }
}

void CheckOrder(const History& history, Verdict& verdict) {
  CheckLogOrder(history, verdict);
  CheckDeliveryOrder(history, verdict);
}

// G7: the auditor looks at every write when it is made.
void CheckFenced(const History& history, Verdict& verdict) { verdict.Judge("G7", history.owner_writes); }

void CheckBounded(const History& history, Verdict& verdict) {
  verdict.Judge("G10", history.calls_answered);
  CheckTrimDone(history, verdict);
}

// Another call may have written it.
bool WasBorrowed(const History& history, const std::string& text) {
  const auto borrowers = history.borrowers.find(text);
  return borrowers != history.borrowers.end() &&
         std::any_of(borrowers->second.begin(), borrowers->second.end(),
                     [](const auto& append) { return append->fate != Fate::kRefused; });
}

// G11: what was refused was not done.
void CheckKnownOrSaid(const History& history, Verdict& verdict) {
  for (const auto& append : history.appends) {
    if (append->fate != Fate::kRefused) continue;
    verdict.Judge("G11");
    for (const std::string& text : append->texts) {
      const auto found = history.places.find(text);
      if (found == history.places.end() || WasBorrowed(history, text)) continue;
      verdict.Violate(history.stored.at(found->second[0]).created, Cat("G11: ", text, " was refused and is written"));
    }
  }
}

}  // namespace

std::vector<std::string> Verdict::Violations() const {
  auto sorted = violations_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> texts;
  for (auto& [number, text] : sorted) texts.push_back(std::move(text));
  return texts;
}

const std::vector<Checker>& Checkers() {
  static const std::vector<Checker>& checkers = *new std::vector<Checker>{
      {"G1", CheckDurable},  {"G2", CheckNoLoss},       {"G3", CheckAckIsFinal}, {"G4", CheckWrittenOnce},
      {"G5", CheckOrder},    {"G6", CheckOneHolder},    {"G7", CheckFenced},     {"G9", CheckSubscribers},
      {"G10", CheckBounded}, {"G11", CheckKnownOrSaid},
  };
  return checkers;
}

Verdict JudgeHistory(const History& history) {
  Verdict verdict;
  for (const auto& [when, text] : history.violations) verdict.Violate(when, text);
  for (const Checker& checker : Checkers()) {
    verdict.Judge(checker.promise, 0);
    checker.check(history, verdict);
  }
  return verdict;
}

}  // namespace postkeeper
