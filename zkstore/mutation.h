// Deliberate bugs, for the tests that prove that the fault tests would find them.
#ifndef POSTKEEPER_ZKSTORE_MUTATION_H_
#define POSTKEEPER_ZKSTORE_MUTATION_H_

#include <atomic>

namespace postkeeper {

// Each stands at one place of the code, where the right thing is left out or done wrongly while it is switched on.
enum class Mutation {
  kNone,
  kSkipOwnerFence,       // a cursor write does not check the owner
  kAckBeforeWrite,       // Ack is answered before the cursor is written
  kSkipProducerVersion,  // an append does not check the producer's version
  kResendUnread,         // what was on its way is sent again under a new name, without reading what is in
  kForgetToRetake,       // after an expired session the memory is kept, whoever had the log meanwhile
  kGiveTwice,            // a leased message stays ready
  kDeleteBatchEarly,     // a batch is deleted one message too early
  kLoseHandedOverLease,  // leases of an owner that stopped in good order are forgotten
  kDispatchUnfenced,     // dispatching goes on however long ZooKeeper has not answered
  kAcceptStaleToken,     // any delivery number settles
  kSkipBatchAfterSeal,   // reading begins with the second batch of a new segment
  kForgetDelayed,        // a message whose Nack delay runs at a take-over is forgotten
  kUnrecordedNumber,     // a second delivery is sent before the cursor knows its number
  kUnknownIsRefused,     // an append whose outcome is not known is called not written
  kDeposedSaysOk,        // a deposed owner says OK without looking whether its last write is in
  kForgetRequestId,      // a request_id whose outcome is not known is forgotten
  kForgetDedupId,        // a dedup_id whose outcome is not known is forgotten
  kOverlookDedupIds,     // a new owner does not learn the dedup_ids of the batches that it reads
  kSilentGap,            // a subscriber that was overtaken by the trim is not told
  kHeadGoesBack,         // a topic's owner that stops writes a head older than its last trim
  kTrimTooMuch,          // a trim deletes one batch more than the head says
  kDropIdsOfDeleted,     // a write that deletes batches does not carry their ids
  kIgnoreDeletedIds,     // a new owner does not read the ids of deleted batches
  kAnswerIdsUnread,      // ids are answered before a new owner has read the window
  kForgetAnnounced,      // leases that streams come back with after a crash are forgotten
  kGiveUnannounced,      // an owner behind one that crashed gives out before leases can be announced
  kForgetReign,          // after a crash only leases of the last epoch count, not those of the whole reign
  kLoseUnanswered,       // frames that the owner before has not answered are not sent to the next one
  kHopLoop,              // a relayed call is relayed on
  kRelayTwice,           // a relayed call whose connection broke is sent again
  kBrokenIsRefused,      // a relayed call whose connection broke is called not carried out
};

namespace internal {
inline std::atomic<Mutation> current_mutation = Mutation::kNone;
}  // namespace internal

// False outside of tests.
inline bool IsMutated(Mutation mutation) {
  return internal::current_mutation.load(std::memory_order_relaxed) == mutation;
}

// Only for tests; kNone switches off. Thread-safe.
inline void SetMutationForTest(Mutation mutation) {
  internal::current_mutation.store(mutation, std::memory_order_relaxed);
}

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_MUTATION_H_
