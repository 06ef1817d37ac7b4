#include "service/call_gate.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>

#include "zkstore/errors.h"
#include "zkstore/simulated_environment.h"

namespace postkeeper {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

struct FakeStream : OpenStream {
  void AskToLeave(std::string_view, Duration asked_grace) override {
    ++asked;
    grace = asked_grace;
  }
  void EndNow(absl::Status why) override { end = std::move(why); }
  void Break() override { ++broken; }

  int asked = 0;
  Duration grace{};
  std::optional<absl::Status> end;
  int broken = 0;
};

class CallGateTest : public testing::Test {
 protected:
  // Moves the clock on, looking once per second as the server does.
  void Pass(Duration duration) {
    for (Duration passed{}; passed < duration; passed += seconds(1)) {
      environment_.AdvanceBy(seconds(1));
      gate_.Tick();
    }
  }

  SimulatedEnvironment environment_{1};
  CallGate gate_{environment_, {.calls_max = 2, .streams_max = 2}};
};

// Past the maximum a call is refused with the limit, and the ones inside are not disturbed.
TEST_F(CallGateTest, CountsCalls) {
  EXPECT_TRUE(gate_.EnterCall().ok());
  EXPECT_TRUE(gate_.EnterCall().ok());
  const absl::Status refused = gate_.EnterCall();
  EXPECT_TRUE(HasReason(refused, Reason::kTooManyCalls));
  EXPECT_EQ(DetailsOf(refused).limit, 2);
  gate_.LeaveCall();
  EXPECT_TRUE(gate_.EnterCall().ok());
  gate_.LeaveCall();
  gate_.LeaveCall();
  EXPECT_TRUE(gate_.IsEmpty());
}

// The same for streams.
TEST_F(CallGateTest, CountsStreams) {
  const auto a = std::make_shared<FakeStream>();
  const auto b = std::make_shared<FakeStream>();
  const auto c = std::make_shared<FakeStream>();
  EXPECT_TRUE(gate_.EnterStream(a).ok());
  EXPECT_TRUE(gate_.EnterStream(b).ok());
  EXPECT_TRUE(HasReason(gate_.EnterStream(c), Reason::kTooManyStreams));
  gate_.LeaveStream(c.get());  // one that was never inside
  gate_.LeaveStream(a.get());
  EXPECT_TRUE(gate_.EnterStream(c).ok());
  EXPECT_FALSE(gate_.IsEmpty());
}

// A stopping server refuses what is new and asks what is open to leave, once, with the grace it has.
TEST_F(CallGateTest, Drains) {
  const auto stream = std::make_shared<FakeStream>();
  ASSERT_TRUE(gate_.EnterStream(stream).ok());
  gate_.Drain(seconds(20));
  EXPECT_EQ(stream->asked, 1);
  EXPECT_EQ(stream->grace, seconds(20));
  EXPECT_TRUE(HasReason(gate_.EnterCall(), Reason::kReplicaDraining));
  EXPECT_TRUE(HasReason(gate_.EnterStream(std::make_shared<FakeStream>()), Reason::kReplicaDraining));
  EXPECT_FALSE(stream->end.has_value());
  gate_.EndStreams();
  EXPECT_TRUE(HasReason(*stream->end, Reason::kReplicaDraining));
  gate_.LeaveStream(stream.get());
  EXPECT_TRUE(gate_.IsEmpty());
}

// A stream that has lived for long is asked to leave within 30 min +- 10 %, ended after the grace, and broken if that
// does not help.
TEST_F(CallGateTest, MovesOldStreams) {
  const auto stream = std::make_shared<FakeStream>();
  ASSERT_TRUE(gate_.EnterStream(stream).ok());
  Pass(minutes(26));
  EXPECT_EQ(stream->asked, 0);
  Pass(minutes(8));
  EXPECT_EQ(stream->asked, 1);
  EXPECT_EQ(stream->grace, minutes(5));
  Pass(minutes(5));
  ASSERT_TRUE(stream->end.has_value());
  EXPECT_TRUE(HasReason(*stream->end, Reason::kReplicaDraining));
  Pass(CallGate::kBreakAfter + seconds(1));
  EXPECT_GE(stream->broken, 1);
  EXPECT_EQ(stream->asked, 1);
}

// A stream that is gone without a word costs nothing and is never called.
TEST_F(CallGateTest, ForgottenStreams) {
  auto stream = std::make_shared<FakeStream>();
  ASSERT_TRUE(gate_.EnterStream(stream).ok());
  stream.reset();
  Pass(minutes(40));
  gate_.Drain(seconds(1));
  gate_.EndStreams();
  EXPECT_TRUE(gate_.is_draining());
}

}  // namespace
}  // namespace postkeeper
