// One checker for each promise of docs/GUARANTEES.md that is served.
#ifndef POSTKEEPER_TESTS_SUPPORT_SIMULATION_CHECKERS_H_
#define POSTKEEPER_TESTS_SUPPORT_SIMULATION_CHECKERS_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/simulation/history.h"

namespace postkeeper {

// What the checkers say of a history.
class Verdict {
 public:
  void Judge(const std::string& promise, std::int64_t cases = 1) { judged_[promise] += cases; }
  void Violate(Moment when, std::string text) { violations_.emplace_back(when.number, std::move(text)); }

  // In the order in which they happened, each beginning with its promise. Empty: all is well.
  std::vector<std::string> Violations() const;
  // How much each checker had to judge.
  const std::map<std::string, std::int64_t>& judged() const { return judged_; }

 private:
  std::map<std::string, std::int64_t> judged_;
  std::vector<std::pair<std::uint64_t, std::string>> violations_;
};

struct Checker {
  const char* promise;
  void (*check)(const History& history, Verdict& verdict);
};
// In the order of the promises.
const std::vector<Checker>& Checkers();
// Lets all of them judge.
Verdict JudgeHistory(const History& history);

// Those of checkers_queue.cc and checkers_topic.cc.
void CheckAckIsFinal(const History& history, Verdict& verdict);
void CheckOneHolder(const History& history, Verdict& verdict);
void CheckDeliveryOrder(const History& history, Verdict& verdict);
void CheckQueuesEmpty(const History& history, Verdict& verdict);
void CheckSubscribers(const History& history, Verdict& verdict);
void CheckTrimNeeded(const History& history, Verdict& verdict);
void CheckTrimDone(const History& history, Verdict& verdict);

}  // namespace postkeeper

#endif  // POSTKEEPER_TESTS_SUPPORT_SIMULATION_CHECKERS_H_
