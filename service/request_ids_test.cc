// Calls that are repeated under one request_id.
#include "service/request_ids.h"

#include <gtest/gtest.h>

#include "zkstore/errors.h"
#include "zkstore/simulated_environment.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using Entered = RequestIds::Entered;

absl::StatusOr<Appended> Written(std::uint32_t version) {
  return Appended{.writer = {.generation = 1, .version = version}, .first_index = 0, .count = 1};
}
absl::StatusOr<Appended> Unknown() { return MakeError(Reason::kOutcomeUnknown, "?"); }
absl::StatusOr<Appended> Refused() { return MakeError(Reason::kZookeeperUnavailable, "no"); }

class RequestIdsTest : public testing::Test {
 protected:
  // Enters the id; the answer, if it is given, goes into `answers_`.
  Entered Enter(const std::string& id) {
    RequestIds::Done done = [this](const absl::StatusOr<Appended>& outcome) { answers_.push_back(outcome); };
    return ids_->Enter(HashOfRequestId(id), done);
  }

  Instant Learn(const std::string& id, std::uint32_t version, Instant written_at) {
    return ids_->Learn(HashOfRequestId(id), *Written(version), written_at);
  }

  SimulatedEnvironment environment_{1};
  std::shared_ptr<RequestIds> ids_ =
      std::make_shared<RequestIds>(environment_, environment_.MakeStrand(), 3, minutes(10));
  std::vector<absl::StatusOr<Appended>> answers_;
};

// A repeat that comes before the answer waits for it; one that comes after it gets it at once.
TEST_F(RequestIdsTest, RepeatsGetTheFirstAnswer) {
  EXPECT_EQ(Enter("a"), Entered::kNew);
  EXPECT_EQ(Enter("a"), Entered::kKnown);
  EXPECT_EQ(Enter("a"), Entered::kKnown);
  EXPECT_TRUE(answers_.empty());
  ids_->Finish(HashOfRequestId("a"), Written(7));
  ASSERT_EQ(answers_.size(), 2u);
  EXPECT_EQ(Enter("a"), Entered::kKnown);
  ASSERT_EQ(answers_.size(), 3u);
  for (const auto& answer : answers_) EXPECT_EQ(answer->writer.version, 7u);
}

// Messages that were not written are forgotten: who waited is told, and the next repeat writes.
TEST_F(RequestIdsTest, RefusedCallsMayBeRepeated) {
  EXPECT_EQ(Enter("a"), Entered::kNew);
  EXPECT_EQ(Enter("a"), Entered::kKnown);
  ids_->Finish(HashOfRequestId("a"), Refused());
  ASSERT_EQ(answers_.size(), 1u);
  EXPECT_TRUE(HasReason(answers_[0].status(), Reason::kZookeeperUnavailable));
  EXPECT_EQ(Enter("a"), Entered::kNew);
}

// While the outcome is unknown nothing is written; a repeat waits for the fate of the first, for a second at most.
TEST_F(RequestIdsTest, UnknownBecomesKnown) {
  EXPECT_EQ(Enter("a"), Entered::kNew);
  ids_->Finish(HashOfRequestId("a"), Unknown());
  EXPECT_EQ(Enter("a"), Entered::kKnown);
  environment_.AdvanceBy(milliseconds(999));
  EXPECT_TRUE(answers_.empty());
  environment_.AdvanceBy(milliseconds(1));
  ASSERT_EQ(answers_.size(), 1u);
  EXPECT_TRUE(HasReason(answers_[0].status(), Reason::kOutcomeUnknown));

  EXPECT_EQ(Enter("a"), Entered::kKnown);
  environment_.AdvanceBy(milliseconds(500));
  ids_->Finish(HashOfRequestId("a"), Written(3));
  ASSERT_EQ(answers_.size(), 2u);
  EXPECT_EQ(answers_[1]->writer.version, 3u);
  environment_.AdvanceBy(minutes(1));
  EXPECT_EQ(answers_.size(), 2u);
}

// Messages that turn out not to be written are forgotten, whatever was said before.
TEST_F(RequestIdsTest, UnknownBecomesRefused) {
  EXPECT_EQ(Enter("a"), Entered::kNew);
  ids_->Finish(HashOfRequestId("a"), Unknown());
  EXPECT_EQ(Enter("a"), Entered::kKnown);
  ids_->Finish(HashOfRequestId("a"), Refused());
  ASSERT_EQ(answers_.size(), 1u);
  EXPECT_TRUE(HasReason(answers_[0].status(), Reason::kZookeeperUnavailable));
  EXPECT_EQ(Enter("a"), Entered::kNew);
  EXPECT_EQ(Enter("a"), Entered::kKnown);
  environment_.AdvanceBy(minutes(1));  // the patience of the one who was told is not that of who waits now
  EXPECT_EQ(answers_.size(), 1u);
}

// A later word about messages that are known to be written changes nothing.
TEST_F(RequestIdsTest, WrittenStaysWritten) {
  EXPECT_EQ(Enter("a"), Entered::kNew);
  ids_->Finish(HashOfRequestId("a"), Written(3));
  ids_->Finish(HashOfRequestId("a"), Unknown());
  ids_->Finish(HashOfRequestId("never entered"), Written(4));
  EXPECT_EQ(Enter("a"), Entered::kKnown);
  EXPECT_EQ(answers_.back()->writer.version, 3u);
  EXPECT_EQ(ids_->size(), 1u);
}

// An id is kept for the window and forgotten after it; one that is open or unknown is never forgotten.
TEST_F(RequestIdsTest, IdsExpire) {
  EXPECT_EQ(Enter("a"), Entered::kNew);
  EXPECT_EQ(Enter("open"), Entered::kNew);
  EXPECT_EQ(Enter("unknown"), Entered::kNew);
  ids_->Finish(HashOfRequestId("a"), Written(1));
  ids_->Finish(HashOfRequestId("unknown"), Unknown());
  environment_.AdvanceBy(minutes(10) - seconds(1));
  EXPECT_EQ(Enter("a"), Entered::kKnown);
  environment_.AdvanceBy(seconds(1));
  EXPECT_EQ(Enter("a"), Entered::kNew);
  environment_.AdvanceBy(minutes(90));
  EXPECT_EQ(Enter("open"), Entered::kKnown);
  EXPECT_EQ(Enter("unknown"), Entered::kKnown);
}

// Past the bound a new id is refused rather than an old one forgotten; room comes back with the window.
TEST_F(RequestIdsTest, FullRefusesNewIds) {
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Enter(Cat("id", i)), Entered::kNew);
    ids_->Finish(HashOfRequestId(Cat("id", i)), Written(1));
    environment_.AdvanceBy(seconds(1));
  }
  EXPECT_EQ(Enter("d"), Entered::kFull);
  EXPECT_EQ(Enter("id0"), Entered::kKnown);
  environment_.AdvanceBy(minutes(10) - seconds(3));
  EXPECT_EQ(Enter("d"), Entered::kNew);
  EXPECT_EQ(Enter("e"), Entered::kFull);
}

// An id that was read from the store is known: its repeat gets the answer, for what is left of the window.
TEST_F(RequestIdsTest, LearnedIdsAreKnown) {
  environment_.AdvanceBy(minutes(20));
  const Instant written_at = environment_.Now() - minutes(9);
  EXPECT_EQ(Learn("a", 5, written_at), written_at);
  EXPECT_EQ(Enter("a"), Entered::kKnown);
  EXPECT_EQ(answers_.back()->writer.version, 5u);
  EXPECT_EQ(answers_.back()->count, 1u);
  environment_.AdvanceBy(minutes(1) - milliseconds(1));
  EXPECT_EQ(Enter("a"), Entered::kKnown);
  environment_.AdvanceBy(milliseconds(1));
  EXPECT_EQ(Enter("a"), Entered::kNew);
  Learn("old", 6, environment_.Now() - minutes(10));
  EXPECT_EQ(Enter("old"), Entered::kNew);
}

// What is read ends the waiting for a fate, and a refusal of another try does not undo it.
TEST_F(RequestIdsTest, LearnedIdsAnswerWhoWaits) {
  EXPECT_EQ(Enter("a"), Entered::kNew);
  ids_->Finish(HashOfRequestId("a"), Unknown());
  EXPECT_EQ(Enter("a"), Entered::kKnown);
  Learn("a", 5, environment_.Now());
  ASSERT_EQ(answers_.size(), 1u);
  EXPECT_EQ(answers_[0]->writer.version, 5u);
  ids_->Finish(HashOfRequestId("a"), Refused());
  EXPECT_EQ(Enter("a"), Entered::kKnown);
}

// Of two uses of one id the later counts, in whatever order they are read; the time that the writer knows of counts if
// it is later than what the store says.
TEST_F(RequestIdsTest, TheLaterUseCounts) {
  environment_.AdvanceBy(minutes(20));
  const Instant now = environment_.Now();
  Learn("a", 5, now - minutes(1));
  Learn("a", 4, now - minutes(5));
  Learn("b", 4, now - minutes(5));
  Learn("b", 5, now - minutes(1));
  for (const char* id : {"a", "b"}) {
    EXPECT_EQ(Enter(id), Entered::kKnown);
    EXPECT_EQ(answers_.back()->writer.version, 5u);
  }
  environment_.AdvanceBy(minutes(6));
  EXPECT_EQ(Enter("a"), Entered::kKnown);
  EXPECT_EQ(Enter("b"), Entered::kKnown);

  EXPECT_EQ(Enter("c"), Entered::kNew);
  ids_->Finish(HashOfRequestId("c"), Written(6));
  EXPECT_EQ(Learn("c", 6, now - minutes(30)), environment_.Now());
}

// What was written is never forgotten for want of room; new ids are refused while there is too much.
TEST_F(RequestIdsTest, LearnedIdsAreNotRefused) {
  for (int i = 0; i < 5; ++i) Learn(Cat("id", i), 1, environment_.Now());
  EXPECT_EQ(ids_->size(), 5u);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Enter(Cat("id", i)), Entered::kKnown);
  EXPECT_EQ(Enter("new"), Entered::kFull);
  environment_.AdvanceBy(minutes(10));
  EXPECT_EQ(Enter("new"), Entered::kNew);
}

}  // namespace
}  // namespace postkeeper
