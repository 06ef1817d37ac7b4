// A topic under random faults, and the promises of docs/GUARANTEES.md checked against what its producers and
// subscribers saw.
#ifndef POSTKEEPER_TESTS_SUPPORT_FAULTS_TOPIC_HISTORY_H_
#define POSTKEEPER_TESTS_SUPPORT_FAULTS_TOPIC_HISTORY_H_

#include <array>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "service/topic_engine.h"
#include "tests/support/faults/fault_world.h"

namespace postkeeper {

// Producers with and without request_id; a topic that is trimmed by its number of messages or by their age; subscribers
// from "earliest", from "latest" and after a position, which go on behind their last position when a stream ends, or,
// told OUT_OF_RANGE, behind the position named. An auditor reads what stands in the store, past the service.
class TopicHistory : public FaultWorld {
 public:
  explicit TopicHistory(std::uint64_t seed);
  ~TopicHistory() override;

 private:
  using StepOutcome = absl::StatusOr<TopicEngine::Step>;

  // A stored batch, as the auditor found it.
  struct Stored {
    std::vector<std::string> texts;  // none: the end of a segment
    WallTime created{};
    bool is_there = true;  // not trimmed
  };

  struct Subscriber {
    std::string name;
    CheckedStart start;
    int slot = 0;
    int run = 0;  // of its streams, the one that counts
    bool is_running = false;
    Instant asked_at{};                // for its first position
    std::optional<Instant> began_at;   // when it got it
    Position first;                    // that position
    std::optional<Position> position;  // read so far
    std::map<Position, std::string> got;
    std::vector<std::pair<Position, Position>> told_trimmed;  // stood behind the first, was sent behind the second
  };

  void OnBoot(int slot) override;
  void OnEnd(int slot) override;
  Uid uid() const override { return *uid_; }
  bool IsServing(int slot) const override;
  std::shared_ptr<Pending<AppendOutcome>> StartAppend(int slot, CheckedAppend append) override;
  void Step() override;
  void OnHealing() override;
  bool IsAllDone() override;
  void Judge() override;

  bool IsOver(const Subscriber& subscriber, int slot, int run) const;
  void AddSubscriber(std::string name, CheckedStart start);
  void Subscribe(const std::shared_ptr<Subscriber>& subscriber);
  Task<void> Read(std::shared_ptr<Subscriber> subscriber, std::shared_ptr<TopicEngine> topic, int slot, int run);
  void Begin(Subscriber& subscriber, const TopicEngine::Step& step);
  void Receive(Subscriber& subscriber, const TopicEngine::Step& step);
  void Fail(Subscriber& subscriber, const absl::Status& status);

  // Sees every change of the store.
  void Audit(const zk::TreeEvent& event);
  void AuditBatch(Position at, const std::string& path);
  Position LastStored() const;
  void JudgeAppends();
  void JudgeOrder();
  void JudgeTrim();
  void JudgeSubscriber(const Subscriber& subscriber);

  TopicSettings settings_;
  std::array<std::shared_ptr<TopicEngine>, kReplicas> topics_;
  std::optional<Uid> uid_;
  std::map<Position, Stored> stored_;
  std::map<std::string, Position> positions_;  // of texts
  std::vector<std::shared_ptr<Subscriber>> subscribers_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_TESTS_SUPPORT_FAULTS_TOPIC_HISTORY_H_
