#include "service/scaling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "zkstore/errors.h"

namespace postkeeper {
namespace {

using Metadata = std::map<std::string, std::string>;
using std::chrono::seconds;

QueueEngine::Stats StatsOf(std::int64_t ready, std::int64_t leased, double settle_rate, Duration oldest_age) {
  QueueEngine::Stats stats;
  stats.counts.ready = ready;
  stats.counts.leased = leased;
  stats.settle_rate = settle_rate;
  stats.oldest_age = oldest_age;
  return stats;
}

// What is wrong with the metadata, in words, and in which field.
std::string Refused(const Metadata& metadata) {
  const absl::StatusOr<ScaleTarget> target = ReadScaleTarget(metadata);
  EXPECT_EQ(target.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(DetailsOf(target.status()).field, testing::StartsWith("scalerMetadata."));
  return std::string(target.status().message());
}

// A trigger names a queue and one measure with its target; KEDA's own keys are let by, and so are values that KEDA took
// from the environment.
TEST(ScalingTest, ReadsATrigger) {
  absl::StatusOr<ScaleTarget> target =
      ReadScaleTarget({{"scalerAddress", "postkeeper:7411"}, {"queue", "orders"}, {"readyMessages", "100"}});
  ASSERT_TRUE(target.ok()) << target.status();
  EXPECT_EQ(target->queue.Full(), "namespaces/default/queues/orders");
  EXPECT_EQ(target->by, ScaleBy::kReadyMessages);
  EXPECT_EQ(target->target, 100);

  target = ReadScaleTarget({{"queueFromEnv", "namespaces/shop/queues/orders"}, {"oldestAge", "1500ms"}});
  ASSERT_TRUE(target.ok()) << target.status();
  EXPECT_EQ(target->queue.Full(), "namespaces/shop/queues/orders");
  EXPECT_EQ(target->by, ScaleBy::kOldestAge);
  EXPECT_EQ(target->target, 1.5);

  target = ReadScaleTarget({{"queue", "orders"}, {"drainTime", "5m"}, {"enableTLS", "false"}, {"unsafeSsl", "true"}});
  ASSERT_TRUE(target.ok()) << target.status();
  EXPECT_EQ(target->by, ScaleBy::kDrainTime);
  EXPECT_EQ(target->target, 300);
}

// Whatever is wrong is said in words of the trigger.
TEST(ScalingTest, RefusesWrongTriggers) {
  EXPECT_EQ(Refused({}), "scalerMetadata.queue is missing: the name of the queue whose workers are scaled");
  EXPECT_EQ(Refused({{"queue", "q"}}),
            "scalerMetadata.readyMessages is missing: give one of readyMessages, oldestAge and drainTime");
  EXPECT_EQ(Refused({{"queue", "q"}, {"readyMessages", "5"}, {"drainTime", "1m"}}),
            "scalerMetadata.drainTime cannot stand beside readyMessages: one trigger measures one thing");
  EXPECT_EQ(Refused({{"queue", "q"}, {"readyMesages", "5"}}),
            "scalerMetadata.readyMesages is not known. Did you mean readyMessages?");
  EXPECT_EQ(Refused({{"queue", "q"}, {"queueFromEnv", "r"}, {"readyMessages", "5"}}),
            "scalerMetadata.queue is given twice");
  for (const char* wrong : {"", "0", "-1", "1.5", "many", "99999999999999999999"}) {
    EXPECT_EQ(Refused({{"queue", "q"}, {"readyMessages", wrong}}),
              std::string("scalerMetadata.readyMessages is to be a whole number from 1 on, not '") + wrong + "'");
  }
  for (const char* wrong : {"", "30", "0s", "-5s", "5d", "9000000000000000h", "99999h"}) {
    EXPECT_EQ(Refused({{"queue", "q"}, {"oldestAge", wrong}}),
              std::string("scalerMetadata.oldestAge is to be a time such as 30s, 5m or 1h, not '") + wrong + "'");
  }
  EXPECT_THAT(Refused({{"queue", "No Name"}, {"readyMessages", "5"}}),
              testing::HasSubstr("\"No Name\" is not the name of a queue"));
}

// Workers are wanted while something is ready, and kept while something is being worked on; what is due later waits
// without them.
TEST(ScalingTest, ActiveWhileThereIsWork) {
  EXPECT_FALSE(IsActive(StatsOf(0, 0, 0, {})));
  EXPECT_TRUE(IsActive(StatsOf(1, 0, 0, seconds(1))));
  EXPECT_TRUE(IsActive(StatsOf(0, 1, 0, seconds(1))));
  QueueEngine::Stats later;
  later.counts.delayed = 5;
  EXPECT_FALSE(IsActive(later));
}

// The three measures.
TEST(ScalingTest, Measures) {
  const ScaleTarget ready{{}, ScaleBy::kReadyMessages, 100};
  const ScaleTarget age{{}, ScaleBy::kOldestAge, 30};
  const ScaleTarget drain{{}, ScaleBy::kDrainTime, 60};
  EXPECT_EQ(Measure(ready, StatsOf(250, 50, 10, seconds(9))), 250);
  EXPECT_EQ(Measure(age, StatsOf(250, 50, 10, seconds(9))), 9);
  EXPECT_EQ(Measure(drain, StatsOf(250, 50, 10, seconds(9))), 30);
  EXPECT_EQ(Measure(drain, StatsOf(0, 0, 10, {})), 0);
  // Nothing was settled for a minute.
  EXPECT_EQ(Measure(drain, StatsOf(250, 0, 0, seconds(9))), 60);
  EXPECT_EQ(Measure(drain, StatsOf(250, 0, 0, seconds(900))), 900);
  // Only what is due later.
  QueueEngine::Stats later = StatsOf(0, 0, 0, seconds(500));
  later.counts.delayed = 5;
  EXPECT_EQ(Measure(age, later), 0);
  EXPECT_EQ(Measure(drain, later), 0);
}

}  // namespace
}  // namespace postkeeper
