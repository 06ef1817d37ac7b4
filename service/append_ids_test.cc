// Calls that are repeated under one request_id, and messages under one dedup_id.
#include "service/append_ids.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "zkstore/errors.h"
#include "zkstore/simulated_environment.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::ElementsAre;
using Entered = AppendIds::Entered;

absl::StatusOr<Appended> Written(std::uint32_t version) {
  return Appended{.writer = {.generation = 1, .version = version}, .first_index = 0, .count = 1};
}
absl::StatusOr<Appended> Unknown() { return MakeError(Reason::kOutcomeUnknown, "?"); }
absl::StatusOr<Appended> Refused() { return MakeError(Reason::kZookeeperUnavailable, "no"); }

class AppendIdsTest : public testing::Test {
 protected:
  static CheckedAppend Call(const std::string& request_id, const std::vector<std::string>& dedup_ids) {
    CheckedAppend append;
    append.request_id = request_id;
    for (const std::string& id : dedup_ids) {
      NewMessage& message = append.messages.emplace_back();
      message.bytes = Cat("message ", append.messages.size() - 1);
      append.message_bytes += std::ssize(message.bytes);
      if (id.empty()) continue;
      message.dedup_id = HashOfDedupId(id);
      ++append.dedup_ids;
    }
    return append;
  }
  // Enters the id of a call; the answer, if it is given, goes into `answers_`.
  Entered Enter(const std::string& id) { return Enter(Call(id, {""}), id); }
  // The same of calls with dedup_ids; what is left to be written goes into `left_`.
  Entered Enter(CheckedAppend append, const std::string& name) {
    AppendIds::Done done = [this](const absl::StatusOr<Appended>& outcome) { answers_.push_back(outcome); };
    AppendIds::Held held;
    const Entered entered = ids_->Enter(append, done, held);
    if (entered == Entered::kNew) held_[name] = held;
    left_.clear();
    for (const NewMessage& message : append.messages) left_.push_back(message.bytes);
    std::int64_t bytes = 0;
    for (const NewMessage& message : append.messages) bytes += std::ssize(message.bytes);
    EXPECT_EQ(append.message_bytes, bytes);
    return entered;
  }
  void Finish(const std::string& name, const absl::StatusOr<Appended>& outcome) {
    ids_->Finish(held_.at(name), outcome);
  }
  // As the appender says it.
  void FinishWritten(const std::string& name, std::uint32_t version, std::uint32_t first_index, std::uint32_t count) {
    const Writer writer{.generation = 1, .version = version};
    Finish(name, Appended{writer, first_index, count, PlacedAt(held_.at(name).duplicates, writer, first_index)});
  }

  Instant Learn(const std::string& id, std::uint32_t version, Instant written_at) {
    return ids_->Learn(HashOfRequestId(id), *Written(version), written_at);
  }
  // What the latest answer says of each message: version/index in the batch, and * if it was a duplicate.
  std::string LastAnswer() {
    if (answers_.empty() || !answers_.back().ok()) return "none";
    const Appended& answer = *answers_.back();
    std::string text;
    std::uint32_t written = 0;
    std::size_t next = 0;
    for (std::uint32_t i = 0; i < answer.size(); ++i) {
      const bool is_duplicate =
          answer.duplicates && next < answer.duplicates->size() && (*answer.duplicates)[next].index == i;
      const Duplicate place =
          is_duplicate ? (*answer.duplicates)[next++] : Duplicate{i, answer.writer, answer.first_index + written++};
      const MessageId id{place.writer.process, place.writer.generation, place.writer.version,
                         static_cast<std::uint16_t>(place.message_index)};
      EXPECT_EQ(answer.MessageId(i), EncodeMessageId(id));
      text += Cat(i == 0 ? "" : " ", place.writer.version, "/", place.message_index, is_duplicate ? "*" : "");
    }
    return text;
  }

  SimulatedEnvironment environment_{1};
  std::shared_ptr<AppendIds> ids_ =
      std::make_shared<AppendIds>(environment_, environment_.MakeStrand(), 3, minutes(10));
  std::map<std::string, AppendIds::Held> held_;
  std::vector<absl::StatusOr<Appended>> answers_;
  std::vector<std::string> left_;
};

// A repeat that comes before the answer waits for it; one that comes after it gets it at once.
TEST_F(AppendIdsTest, RepeatsGetTheFirstAnswer) {
  EXPECT_EQ(Enter("a"), Entered::kNew);
  EXPECT_EQ(Enter("a"), Entered::kKnown);
  EXPECT_EQ(Enter("a"), Entered::kKnown);
  EXPECT_TRUE(answers_.empty());
  Finish("a", Written(7));
  ASSERT_EQ(answers_.size(), 2u);
  EXPECT_EQ(Enter("a"), Entered::kKnown);
  ASSERT_EQ(answers_.size(), 3u);
  for (const auto& answer : answers_) EXPECT_EQ(answer->writer.version, 7u);
}

// Messages that were not written are forgotten: who waited is told, and the next repeat writes.
TEST_F(AppendIdsTest, RefusedCallsMayBeRepeated) {
  EXPECT_EQ(Enter("a"), Entered::kNew);
  EXPECT_EQ(Enter("a"), Entered::kKnown);
  Finish("a", Refused());
  ASSERT_EQ(answers_.size(), 1u);
  EXPECT_TRUE(HasReason(answers_[0].status(), Reason::kZookeeperUnavailable));
  EXPECT_EQ(Enter("a"), Entered::kNew);
}

// While the outcome is unknown nothing is written; a repeat waits for the fate of the first, for a second at most.
TEST_F(AppendIdsTest, UnknownBecomesKnown) {
  EXPECT_EQ(Enter("a"), Entered::kNew);
  Finish("a", Unknown());
  EXPECT_EQ(Enter("a"), Entered::kKnown);
  environment_.AdvanceBy(milliseconds(999));
  EXPECT_TRUE(answers_.empty());
  environment_.AdvanceBy(milliseconds(1));
  ASSERT_EQ(answers_.size(), 1u);
  EXPECT_TRUE(HasReason(answers_[0].status(), Reason::kOutcomeUnknown));

  EXPECT_EQ(Enter("a"), Entered::kKnown);
  environment_.AdvanceBy(milliseconds(500));
  Finish("a", Written(3));
  ASSERT_EQ(answers_.size(), 2u);
  EXPECT_EQ(answers_[1]->writer.version, 3u);
  environment_.AdvanceBy(minutes(1));
  EXPECT_EQ(answers_.size(), 2u);
}

// Messages that turn out not to be written are forgotten, whatever was said before.
TEST_F(AppendIdsTest, UnknownBecomesRefused) {
  EXPECT_EQ(Enter("a"), Entered::kNew);
  Finish("a", Unknown());
  EXPECT_EQ(Enter("a"), Entered::kKnown);
  Finish("a", Refused());
  ASSERT_EQ(answers_.size(), 1u);
  EXPECT_TRUE(HasReason(answers_[0].status(), Reason::kZookeeperUnavailable));
  EXPECT_EQ(Enter("a"), Entered::kNew);
  EXPECT_EQ(Enter("a"), Entered::kKnown);
  environment_.AdvanceBy(minutes(1));  // the patience of the one who was told is not that of who waits now
  EXPECT_EQ(answers_.size(), 1u);
}

// A later word about messages that are known to be written changes nothing.
TEST_F(AppendIdsTest, WrittenStaysWritten) {
  EXPECT_EQ(Enter("a"), Entered::kNew);
  Finish("a", Written(3));
  Finish("a", Unknown());
  EXPECT_EQ(Enter("a"), Entered::kKnown);
  EXPECT_EQ(answers_.back()->writer.version, 3u);
  EXPECT_EQ(ids_->size(), 1u);
}

// An id is kept for the window and forgotten after it; one that is open or unknown is never forgotten.
TEST_F(AppendIdsTest, IdsExpire) {
  EXPECT_EQ(Enter("a"), Entered::kNew);
  EXPECT_EQ(Enter("open"), Entered::kNew);
  EXPECT_EQ(Enter("unknown"), Entered::kNew);
  Finish("a", Written(1));
  Finish("unknown", Unknown());
  environment_.AdvanceBy(minutes(10) - seconds(1));
  EXPECT_EQ(Enter("a"), Entered::kKnown);
  environment_.AdvanceBy(seconds(1));
  EXPECT_EQ(Enter("a"), Entered::kNew);
  environment_.AdvanceBy(minutes(90));
  EXPECT_EQ(Enter("open"), Entered::kKnown);
  EXPECT_EQ(Enter("unknown"), Entered::kKnown);
}

// Past the bound a new id is refused rather than an old one forgotten; room comes back with the window.
TEST_F(AppendIdsTest, FullRefusesNewIds) {
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Enter(Cat("id", i)), Entered::kNew);
    Finish(Cat("id", i), Written(1));
    environment_.AdvanceBy(seconds(1));
  }
  EXPECT_EQ(Enter("d"), Entered::kFull);
  EXPECT_EQ(Enter("id0"), Entered::kKnown);
  environment_.AdvanceBy(minutes(10) - seconds(3));
  EXPECT_EQ(Enter("d"), Entered::kNew);
  EXPECT_EQ(Enter("e"), Entered::kFull);
}

// An id that was read from the store is known: its repeat gets the answer, for what is left of the window.
TEST_F(AppendIdsTest, LearnedIdsAreKnown) {
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
TEST_F(AppendIdsTest, LearnedIdsAnswerWhoWaits) {
  EXPECT_EQ(Enter("a"), Entered::kNew);
  Finish("a", Unknown());
  EXPECT_EQ(Enter("a"), Entered::kKnown);
  Learn("a", 5, environment_.Now());
  ASSERT_EQ(answers_.size(), 1u);
  EXPECT_EQ(answers_[0]->writer.version, 5u);
  Finish("a", Refused());
  EXPECT_EQ(Enter("a"), Entered::kKnown);
}

// Of two uses of one id the later counts, in whatever order they are read; the time that the writer knows of counts if
// it is later than what the store says.
TEST_F(AppendIdsTest, TheLaterUseCounts) {
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
  Finish("c", Written(6));
  EXPECT_EQ(Learn("c", 6, now - minutes(30)), environment_.Now());
}

// What was written is never forgotten for want of room; new ids are refused while there is too much.
TEST_F(AppendIdsTest, LearnedIdsAreNotRefused) {
  for (int i = 0; i < 5; ++i) Learn(Cat("id", i), 1, environment_.Now());
  EXPECT_EQ(ids_->size(), 5u);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Enter(Cat("id", i)), Entered::kKnown);
  EXPECT_EQ(Enter("new"), Entered::kFull);
  environment_.AdvanceBy(minutes(10));
  EXPECT_EQ(Enter("new"), Entered::kNew);
}

// A message with a known dedup_id is not written again, and gets the id of the first; the others of its call are
// written.
TEST_F(AppendIdsTest, KnownMessagesAreNotWritten) {
  EXPECT_EQ(Enter(Call("", {"a"}), "first"), Entered::kNew);
  FinishWritten("first", 7, 4, 1);
  EXPECT_EQ(Enter(Call("", {"", "a", "b"}), "second"), Entered::kNew);
  EXPECT_THAT(left_, ElementsAre("message 0", "message 2"));
  ASSERT_NE(held_.at("second").duplicates, nullptr);
  FinishWritten("second", 8, 2, 2);
  EXPECT_EQ(Enter(Call("", {"b", "a"}), "third"), Entered::kKnown);
  EXPECT_EQ(LastAnswer(), "8/3* 7/4*");
  EXPECT_EQ(Enter(Call("", {"a"}), "fourth"), Entered::kKnown);
  EXPECT_EQ(LastAnswer(), "7/4*");
  EXPECT_EQ(ids_->size(), 2u);
}

// Of equal ids in one call the first message is written, and the others are its duplicates.
TEST_F(AppendIdsTest, EqualIdsInOneCall) {
  EXPECT_EQ(Enter(Call("", {"", "a", "a", "", "a"}), "call"), Entered::kNew);
  EXPECT_THAT(left_, ElementsAre("message 0", "message 1", "message 3"));
  FinishWritten("call", 7, 5, 3);
  EXPECT_EQ(Enter(Call("", {"a", "a"}), "again"), Entered::kKnown);
  EXPECT_EQ(LastAnswer(), "7/6* 7/6*");
  EXPECT_EQ(Enter(Call("r", {"", "b", "b"}), "full"), Entered::kFull) << "b, r and the duplicate are one too many";
}

// The same, with room: the repeat by request_id gets the answer as it was.
TEST_F(AppendIdsTest, ARequestIdKeepsItsDuplicates) {
  ids_ = std::make_shared<AppendIds>(environment_, environment_.MakeStrand(), 10, minutes(10));
  EXPECT_EQ(Enter(Call("", {"old"}), "first"), Entered::kNew);
  FinishWritten("first", 3, 0, 1);
  environment_.AdvanceBy(minutes(9));
  EXPECT_EQ(Enter(Call("r", {"", "a", "a", "old", ""}), "call"), Entered::kNew);
  EXPECT_EQ(ids_->size(), 5u) << "old, r and its two duplicates, a";
  FinishWritten("call", 7, 5, 3);
  environment_.AdvanceBy(minutes(2));  // the first use of `old` is past the window
  EXPECT_EQ(Enter(Call("r", {"whatever"}), "repeat"), Entered::kKnown);
  EXPECT_EQ(LastAnswer(), "7/5 7/6 7/6* 3/0* 7/7");
  environment_.AdvanceBy(minutes(8));
  EXPECT_EQ(Enter(Call("r", {"old"}), "again"), Entered::kNew);
  EXPECT_EQ(ids_->size(), 2u);
}

// A call whose message is on its way with another call cannot be judged before its fate; it holds nothing meanwhile.
TEST_F(AppendIdsTest, OpenIdsAreWaitedFor) {
  EXPECT_EQ(Enter(Call("", {"a"}), "first"), Entered::kNew);
  const CheckedAppend both = Call("", {"b", "a"});
  EXPECT_EQ(ids_->FindOpen(both), HashOfDedupId("a"));
  EXPECT_EQ(ids_->FindOpen(Call("", {"b"})), std::nullopt);
  EXPECT_EQ(ids_->FindOpen(Call("", {""})), std::nullopt);
  int told = 0;
  ids_->WaitFor(HashOfDedupId("a"), [&](const absl::StatusOr<Appended>& fate) { told += fate.ok() ? 1 : 10; });
  EXPECT_EQ(told, 0);
  FinishWritten("first", 7, 0, 1);
  EXPECT_EQ(told, 1);
  EXPECT_EQ(ids_->FindOpen(both), std::nullopt);
  EXPECT_EQ(Enter(both, "second"), Entered::kNew);
  EXPECT_THAT(left_, ElementsAre("message 0"));
}

// What the first call could not write, the one that waited writes.
TEST_F(AppendIdsTest, RefusedMessagesAreWrittenByTheNext) {
  EXPECT_EQ(Enter(Call("", {"a"}), "first"), Entered::kNew);
  int refused = 0;
  ids_->WaitFor(HashOfDedupId("a"), [&](const absl::StatusOr<Appended>& fate) {
    refused += HasReason(fate.status(), Reason::kZookeeperUnavailable) ? 1 : 0;
  });
  Finish("first", Refused());
  EXPECT_EQ(refused, 1);
  EXPECT_EQ(Enter(Call("", {"a"}), "second"), Entered::kNew);
  EXPECT_THAT(left_, ElementsAre("message 0"));
  EXPECT_EQ(ids_->size(), 1u);
}

// All ids of a call have their fate before anybody hears of one of them.
TEST_F(AppendIdsTest, IdsOfOneCallHaveOneFate) {
  EXPECT_EQ(Enter(Call("r", {"a", "b"}), "first"), Entered::kNew);
  std::optional<IdHash> open = HashOfDedupId("x");
  ids_->WaitFor(HashOfDedupId("a"), [&](const absl::StatusOr<Appended>&) {
    open = ids_->FindOpen(Call("", {"a", "b"}));
  });
  FinishWritten("first", 7, 0, 2);
  EXPECT_EQ(open, std::nullopt);
}

// A request_id decides before the dedup_ids of its call: its repeat gets the first answer, though they are open.
TEST_F(AppendIdsTest, ARequestIdComesFirst) {
  EXPECT_EQ(Enter(Call("r", {"a"}), "first"), Entered::kNew);
  EXPECT_EQ(ids_->FindOpen(Call("r", {"a"})), std::nullopt);
  EXPECT_EQ(Enter(Call("r", {"a"}), "repeat"), Entered::kKnown);
  FinishWritten("first", 7, 0, 1);
  EXPECT_EQ(LastAnswer(), "7/0");
}

// While the outcome is unknown a dedup_id stays open, and who waits is told after a second.
TEST_F(AppendIdsTest, UnknownMessagesStayOpen) {
  EXPECT_EQ(Enter(Call("", {"a"}), "first"), Entered::kNew);
  Finish("first", Unknown());
  EXPECT_EQ(ids_->FindOpen(Call("", {"a"})), HashOfDedupId("a"));
  bool is_unknown = false;
  ids_->WaitFor(HashOfDedupId("a"), [&](const absl::StatusOr<Appended>& fate) {
    is_unknown = HasReason(fate.status(), Reason::kOutcomeUnknown);
  });
  environment_.AdvanceBy(milliseconds(999));
  EXPECT_FALSE(is_unknown);
  environment_.AdvanceBy(milliseconds(1));
  EXPECT_TRUE(is_unknown);
  FinishWritten("first", 7, 0, 1);
  EXPECT_EQ(Enter(Call("", {"a"}), "second"), Entered::kKnown);
  EXPECT_EQ(LastAnswer(), "7/0*");
}

// A call of which nothing is left to be written is answered also when there is no room, and leaves no trace.
TEST_F(AppendIdsTest, NothingLeftNeedsNoRoom) {
  EXPECT_EQ(Enter(Call("", {"a", "b", "c"}), "first"), Entered::kNew);
  FinishWritten("first", 7, 0, 3);
  EXPECT_EQ(Enter(Call("r", {"c", "a"}), "second"), Entered::kKnown);
  EXPECT_EQ(LastAnswer(), "7/2* 7/0*");
  EXPECT_EQ(ids_->size(), 3u);
  EXPECT_EQ(Enter(Call("", {"d"}), "third"), Entered::kFull);
  EXPECT_THAT(left_, ElementsAre("message 0")) << "nothing was taken";
}

// A dedup_id is known for the window, from the time at which its message was written.
TEST_F(AppendIdsTest, DedupIdsExpire) {
  EXPECT_EQ(Enter(Call("", {"a"}), "first"), Entered::kNew);
  FinishWritten("first", 7, 0, 1);
  environment_.AdvanceBy(minutes(10) - milliseconds(1));
  EXPECT_EQ(Enter(Call("", {"a"}), "known"), Entered::kKnown);
  environment_.AdvanceBy(milliseconds(1));
  EXPECT_EQ(Enter(Call("", {"a"}), "free"), Entered::kNew);
  EXPECT_EQ(ids_->size(), 1u);
}

// A request_id and a dedup_id of one text are two ids.
TEST_F(AppendIdsTest, KindsAreKeptApart) {
  EXPECT_EQ(Enter(Call("a", {""}), "request"), Entered::kNew);
  FinishWritten("request", 7, 0, 1);
  EXPECT_EQ(Enter(Call("", {"a"}), "message"), Entered::kNew);
}

// A request_id that has just become too old does not hide that a dedup_id of the same call is open.
TEST_F(AppendIdsTest, AnExpiredRequestIdHidesNothing) {
  ASSERT_EQ(Enter("r"), Entered::kNew);
  Finish("r", Written(1));
  environment_.AdvanceBy(minutes(10) - seconds(1));
  ASSERT_EQ(Enter(Call("", {"d"}), "open"), Entered::kNew);
  environment_.AdvanceBy(seconds(2));
  const CheckedAppend both = Call("r", {"d"});
  EXPECT_EQ(Enter(both, "both"), Entered::kOpen);
  EXPECT_EQ(ids_->FindOpen(both), HashOfDedupId("d"));
}

// A stream waits for a request_id whose fate is open, too.
TEST_F(AppendIdsTest, FindsAnOpenRequestIdWhereAsked) {
  const CheckedAppend call = Call("r", {""});
  EXPECT_EQ(ids_->FindOpen(call, /*looks_at_request_id=*/true), std::nullopt);
  ASSERT_EQ(Enter("r"), Entered::kNew);
  EXPECT_EQ(ids_->FindOpen(call), std::nullopt);
  EXPECT_EQ(ids_->FindOpen(call, /*looks_at_request_id=*/true), HashOfRequestId("r"));
  Finish("r", Written(1));
  EXPECT_EQ(ids_->FindOpen(call, /*looks_at_request_id=*/true), std::nullopt);
}

}  // namespace
}  // namespace postkeeper
