// The simulator has teeth: with each deliberate bug of zkstore/mutation.h some seed below 1,000 makes a history in
// which a promise does not hold. The table in docs/TESTING.md is what this prints.
#include "zkstore/mutation.h"

#include <gtest/gtest.h>

#include <cstdio>

#include "tests/support/simulation/simulation.h"

namespace postkeeper {
namespace {

constexpr std::uint64_t kSeedsMax = 1000;
// Of the large world, in which each takes seconds when it is sanitized.
constexpr std::uint64_t kClusterSeedsMax = 50;

struct Mutant {
  Mutation mutation;
  const char* name;
};

class MutationTest : public testing::TestWithParam<Mutant> {
 protected:
  ~MutationTest() override { SetMutationForTest(Mutation::kNone); }
};

// The bug is found, and without it the same seed is clean.
TEST_P(MutationTest, IsCaught) {
  for (std::uint64_t seed = 1; seed <= kSeedsMax; ++seed) {
    for (const World& world : Worlds()) {
      if (&world == &Worlds().front() && seed > kClusterSeedsMax) continue;
      SetMutationForTest(GetParam().mutation);
      const std::vector<std::string> violations = Simulate(seed, world.options).violations;
      SetMutationForTest(Mutation::kNone);
      if (violations.empty()) continue;
      std::printf("| %s | %s | %s %d |\n", GetParam().name, violations.front().c_str(), std::string(world.name).c_str(),
                  static_cast<int>(seed));
      EXPECT_TRUE(Simulate(seed, world.options).violations.empty()) << "seed " << seed << " fails without the bug, too";
      return;
    }
  }
  FAIL() << "no seed up to " << kSeedsMax << " shows this bug";
}

INSTANTIATE_TEST_SUITE_P(
    Mutations, MutationTest,
    testing::Values(
        Mutant{Mutation::kSkipOwnerFence, "SkipOwnerFence"}, Mutant{Mutation::kAckBeforeWrite, "AckBeforeWrite"},
        Mutant{Mutation::kSkipProducerVersion, "SkipProducerVersion"}, Mutant{Mutation::kResendUnread, "ResendUnread"},
        Mutant{Mutation::kForgetToRetake, "ForgetToRetake"}, Mutant{Mutation::kGiveTwice, "GiveTwice"},
        Mutant{Mutation::kDeleteBatchEarly, "DeleteBatchEarly"},
        Mutant{Mutation::kLoseHandedOverLease, "LoseHandedOverLease"},
        Mutant{Mutation::kDispatchUnfenced, "DispatchUnfenced"},
        Mutant{Mutation::kAcceptStaleToken, "AcceptStaleToken"},
        Mutant{Mutation::kSkipBatchAfterSeal, "SkipBatchAfterSeal"}, Mutant{Mutation::kForgetDelayed, "ForgetDelayed"},
        Mutant{Mutation::kUnrecordedNumber, "UnrecordedNumber"},
        Mutant{Mutation::kUnknownIsRefused, "UnknownIsRefused"}, Mutant{Mutation::kDeposedSaysOk, "DeposedSaysOk"},
        Mutant{Mutation::kForgetRequestId, "ForgetRequestId"}, Mutant{Mutation::kForgetDedupId, "ForgetDedupId"},
        Mutant{Mutation::kOverlookDedupIds, "OverlookDedupIds"}, Mutant{Mutation::kSilentGap, "SilentGap"},
        Mutant{Mutation::kHeadGoesBack, "HeadGoesBack"}, Mutant{Mutation::kTrimTooMuch, "TrimTooMuch"},
        Mutant{Mutation::kDropIdsOfDeleted, "DropIdsOfDeleted"},
        Mutant{Mutation::kIgnoreDeletedIds, "IgnoreDeletedIds"}, Mutant{Mutation::kAnswerIdsUnread, "AnswerIdsUnread"},
        Mutant{Mutation::kForgetAnnounced, "ForgetAnnounced"}, Mutant{Mutation::kGiveUnannounced, "GiveUnannounced"},
        Mutant{Mutation::kForgetReign, "ForgetReign"}, Mutant{Mutation::kLoseUnanswered, "LoseUnanswered"},
        Mutant{Mutation::kHopLoop, "HopLoop"}, Mutant{Mutation::kRelayTwice, "RelayTwice"},
        Mutant{Mutation::kBrokenIsRefused, "BrokenIsRefused"}),
    [](const testing::TestParamInfo<Mutant>& mutant) { return std::string(mutant.param.name); });

}  // namespace
}  // namespace postkeeper
