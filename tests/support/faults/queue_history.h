// A queue under random faults, and the promises of docs/GUARANTEES.md checked against what its producers and consumers
// saw.
#ifndef POSTKEEPER_TESTS_SUPPORT_FAULTS_QUEUE_HISTORY_H_
#define POSTKEEPER_TESTS_SUPPORT_FAULTS_QUEUE_HISTORY_H_

#include <array>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "service/queue_engine.h"
#include "tests/support/faults/fault_world.h"

namespace postkeeper {

// Producers with and without request_id, some messages delayed; at each replica a stream of deliveries, and now and
// then a Dequeue; consumers that ack, ack late, nack, release, or die.
class QueueHistory : public FaultWorld {
 public:
  explicit QueueHistory(std::uint64_t seed);
  ~QueueHistory() override;

 private:
  using SettleOutcome = absl::StatusOr<std::vector<SettleFailure>>;
  // The last position of which a first attempt was seen, by epoch.
  using FirstAttempts = std::map<std::uint64_t, Position>;

  struct Given {
    LeaseToken token;
    std::string message_id;
    Instant at{};
    bool was_given_back = false;  // its consumer has nacked, released or tried to ack it
  };
  // One message as its consumers saw it.
  struct Life {
    bool is_delayed = false;
    std::vector<Given> given;
    std::optional<std::uint64_t> acked_epoch;  // of the owner that answered OK first
    // Its process ended before it answered an ack; or the owner said OUTCOME_UNKNOWN of one, which came in later, and a
    // deposed owner called the repeat stale.
    bool is_perhaps_acked = false;
  };
  struct Settle {
    std::string text;
    LeaseToken token;
    bool is_ack = false;
    bool is_outdated = false;  // sent when somebody else had been given the message
    bool was_unknown = false;  // it repeats an ack that was told OUTCOME_UNKNOWN
    int slot = 0;
    int incarnation = 0;
    std::optional<SettleOutcome> outcome;
  };

  void OnBoot(int slot) override;
  void OnEnd(int slot) override;
  Uid uid() const override { return queues_[0] ? queues_[0]->uid() : queues_[1]->uid(); }
  bool IsServing(int slot) const override;
  std::shared_ptr<Pending<AppendOutcome>> StartAppend(int slot, CheckedAppend append) override;
  void Step() override;
  bool IsAllDone() override;
  void Judge() override;
  void OnBeforeRestart(int slot) override;
  void OnStopped(int slot) override;

  bool IsOver(int slot, int incarnation) const;
  void OpenStream(int slot);
  void Dequeue();
  void Receive(int slot, const std::vector<Delivery>& deliveries, FirstAttempts& before);
  void CheckDelivery(const std::string& text, const Life& life, const Delivery& delivery);
  void CheckOrder(const std::string& text, const Life& life, const Delivery& delivery, FirstAttempts& before);
  void Send(Settle settle, std::optional<CheckedNacks> nacks);
  void OnSettled(Settle& settle, std::uint64_t epoch);
  void WorkThroughInbox();
  void HearOfSettles();
  std::int64_t MessagesLeft();

  QueueSettings settings_;
  std::array<std::shared_ptr<QueueEngine>, kReplicas> queues_;
  std::map<std::string, Life> lives_;  // by text
  std::set<LeaseToken> tokens_;
  std::set<std::uint64_t> handed_over_epochs_;  // the last of owners that stopped in good order
  std::optional<std::uint64_t> stopping_epoch_;
  FirstAttempts first_of_all_;
  FirstAttempts first_of_stream_;
  std::vector<std::string> inbox_;
  std::vector<std::shared_ptr<Settle>> settles_;
  std::vector<Settle> to_ack_late_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_TESTS_SUPPORT_FAULTS_QUEUE_HISTORY_H_
