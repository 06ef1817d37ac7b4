#include "zkstore/text_id.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <vector>

#include "zkstore/errors.h"

namespace postkeeper {
namespace {

constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";

class TextIdTest : public testing::Test {
 protected:
  template <typename Id>
  Id Random() {
    Id id;
    for (std::uint8_t& byte : id.bytes) byte = static_cast<std::uint8_t>(random_());
    return id;
  }
  LeaseToken RandomToken() {
    return {Random<Uid>(), random_(), Position::FromValue(random_()), static_cast<std::uint32_t>(random_())};
  }
  MessageId RandomMessageId() {
    return {Random<ProcessId>(), static_cast<std::uint32_t>(random_()), static_cast<std::uint32_t>(random_()),
            static_cast<std::uint16_t>(random_())};
  }

  std::mt19937_64 random_{7};
};

// Every text of [A-Za-z0-9_-] that is accepted is the one text of its value: `decode_and_encode` gives back what it was
// given, or nothing. Tried with every change of one character, every cut, and something added at each end.
void ExpectCanonical(const std::string& text,
                     const std::function<std::optional<std::string>(std::string_view)>& decode_and_encode) {
  ASSERT_EQ(decode_and_encode(text), text);
  for (std::size_t i = 0; i < text.size(); ++i) {
    EXPECT_EQ(decode_and_encode(text.substr(0, i)), std::nullopt) << i;
    for (const char c : kAlphabet) {
      std::string changed = text;
      changed[i] = c;
      const std::optional<std::string> again = decode_and_encode(changed);
      EXPECT_TRUE(!again || *again == changed) << changed;
    }
    for (const char c : std::string_view("\0 =+/\xff", 6)) {
      std::string changed = text;
      changed[i] = c;
      EXPECT_EQ(decode_and_encode(changed), std::nullopt) << i;
    }
  }
  for (const char c : kAlphabet) {
    EXPECT_EQ(decode_and_encode(text + c), std::nullopt);
    EXPECT_EQ(decode_and_encode(c + text), std::nullopt);
  }
  EXPECT_EQ(decode_and_encode(std::string(100'000, 'A')), std::nullopt);
}

// A lease token comes back whole, fits shells, and no other text means the same.
TEST_F(TextIdTest, LeaseTokens) {
  for (int i = 0; i < 20; ++i) {
    const LeaseToken token = RandomToken();
    const std::string text = EncodeLeaseToken(token);
    EXPECT_THAT(text, testing::MatchesRegex("t[A-Za-z0-9_-]+"));
    EXPECT_LE(text.size(), kTextIdBytesMax);
    EXPECT_EQ(DecodeLeaseToken(text), token);
    ExpectCanonical(text, [](std::string_view t) -> std::optional<std::string> {
      const std::optional<LeaseToken> decoded = DecodeLeaseToken(t);
      if (!decoded) return std::nullopt;
      return EncodeLeaseToken(*decoded);
    });
  }
}

// One changed character of a lease token is always noticed: the check covers all of it.
TEST_F(TextIdTest, ADamagedLeaseTokenIsRefused) {
  const std::string text = EncodeLeaseToken(RandomToken());
  for (std::size_t i = 0; i < text.size(); ++i) {
    for (const char c : kAlphabet) {
      if (c == text[i]) continue;
      std::string changed = text;
      changed[i] = c;
      EXPECT_EQ(DecodeLeaseToken(changed), std::nullopt) << changed;
    }
  }
}

// A message id comes back whole, and has one text.
TEST_F(TextIdTest, MessageIds) {
  for (int i = 0; i < 20; ++i) {
    const MessageId id = RandomMessageId();
    const std::string text = EncodeMessageId(id);
    EXPECT_THAT(text, testing::MatchesRegex("m[A-Za-z0-9_-]+"));
    EXPECT_EQ(DecodeMessageId(text), id);
    ExpectCanonical(text, [](std::string_view t) -> std::optional<std::string> {
      const std::optional<MessageId> decoded = DecodeMessageId(t);
      if (!decoded) return std::nullopt;
      return EncodeMessageId(*decoded);
    });
  }
}

// So do uids, process ids and etags, negative versions too; and none of them passes for another.
TEST_F(TextIdTest, UidsProcessIdsAndEtags) {
  const Uid uid = Random<Uid>();
  const ProcessId process = Random<ProcessId>();
  const Etag etag{uid, -1};
  EXPECT_EQ(DecodeUid(EncodeUid(uid)), uid);
  EXPECT_EQ(DecodeProcessId(EncodeProcessId(process)), process);
  EXPECT_EQ(DecodeEtag(EncodeEtag(etag)), etag);
  EXPECT_EQ(DecodeUid(EncodeProcessId(process)), std::nullopt);
  EXPECT_EQ(DecodeProcessId(EncodeUid(uid)), std::nullopt);
  EXPECT_EQ(DecodeEtag(EncodeMessageId(RandomMessageId())), std::nullopt);
  ExpectCanonical(EncodeUid(uid), [](std::string_view t) -> std::optional<std::string> {
    const std::optional<Uid> decoded = DecodeUid(t);
    if (!decoded) return std::nullopt;
    return EncodeUid(*decoded);
  });
  ExpectCanonical(EncodeEtag(etag), [](std::string_view t) -> std::optional<std::string> {
    const std::optional<Etag> decoded = DecodeEtag(t);
    if (!decoded) return std::nullopt;
    return EncodeEtag(*decoded);
  });
}

// Positions of one topic compare as text in the order of the log, at the ends of every field too.
TEST_F(TextIdTest, PositionsCompareAsTextInLogOrder) {
  const Uid topic = Random<Uid>();
  std::vector<Position> positions = {
      Position(),        Position(0, 0, Position::kIndexMax),
      Position(0, 1, 0), Position(0, Position::kBatchMax, Position::kIndexMax),
      Position(1, 0, 0), Position(Position::kSegmentMax, Position::kBatchMax, Position::kIndexMax)};
  for (int i = 0; i < 200; ++i) positions.push_back(Position::FromValue(random_() >> (random_() % 64)));
  for (const Position a : positions) {
    const std::string text = EncodePosition(topic, a);
    EXPECT_THAT(text, testing::MatchesRegex("[0-9a-v]+"));
    EXPECT_EQ(text.size(), kPositionTextBytes);
    for (const Position b : positions) EXPECT_EQ(text < EncodePosition(topic, b), a < b);
  }
}

// A position comes back only for its own topic: another topic's is told apart from one that is no position.
TEST_F(TextIdTest, APositionKnowsItsTopic) {
  const Uid topic = Random<Uid>();
  const Uid other = Random<Uid>();
  const Position position(5, 6, 7);
  const std::string text = EncodePosition(topic, position);
  EXPECT_EQ(*ParsePosition(text, topic, "prices"), position);
  EXPECT_EQ(ReasonOf(ParsePosition(text, other, "prices").status()), Reason::kPositionOfDeletedTopic);
  EXPECT_EQ(ReasonOf(ParsePosition("x", topic, "prices").status()), Reason::kMalformedPosition);
  ExpectCanonical(text, [](std::string_view t) -> std::optional<std::string> {
    const std::optional<PositionText> decoded = DecodePosition(t);
    if (!decoded) return std::nullopt;
    Uid uid;
    for (int i = 0; i < 8; ++i) uid.bytes[i] = static_cast<std::uint8_t>(decoded->topic >> (56 - 8 * i));
    return EncodePosition(uid, decoded->position);
  });
}

// A page token goes with its list only, and carries any name, the empty and the longest too.
TEST_F(TextIdTest, PageTokens) {
  for (const std::string& name : {std::string(), std::string("orders"), std::string(63, 'z')}) {
    const std::string text = EncodePageToken("default/queues", name);
    EXPECT_LE(text.size(), kTextIdBytesMax);
    EXPECT_EQ(DecodePageToken("default/queues", text), name);
    EXPECT_EQ(DecodePageToken("default/topics", text), std::nullopt);
  }
  ExpectCanonical(EncodePageToken("l", "orders"), [](std::string_view t) -> std::optional<std::string> {
    const std::optional<std::string> name = DecodePageToken("l", t);
    if (!name) return std::nullopt;
    return EncodePageToken("l", *name);
  });
  EXPECT_EQ(DecodePageToken("l", ""), std::nullopt);
}

// The hex form is for paths: exact, lowercase, nothing else.
TEST_F(TextIdTest, HexAndBytesOfIds) {
  const Uid uid = Random<Uid>();
  EXPECT_EQ(uid.ToHex().size(), 32u);
  EXPECT_EQ(Uid::FromHex(uid.ToHex()), uid);
  EXPECT_EQ(Uid::FromBytes(uid.ToBytes()), uid);
  EXPECT_EQ(Uid::FromHex(std::string(32, 'A')), std::nullopt);
  EXPECT_EQ(Uid::FromHex(std::string(31, 'a')), std::nullopt);
  EXPECT_EQ(Uid::FromHex(std::string(32, 'g')), std::nullopt);
  EXPECT_EQ(Uid::FromBytes(std::string(15, 'a')), std::nullopt);
}

// The texts are public and for ever: what an older build gave out must be read by the next.
TEST_F(TextIdTest, TheTextsNeverChange) {
  Uid uid;
  ProcessId process;
  for (std::uint8_t i = 0; i < 16; ++i) {
    uid.bytes[i] = i;
    process.bytes[i] = static_cast<std::uint8_t>(0xF0 + i);
  }
  EXPECT_EQ(EncodeUid(uid), "uAAECAwQFBgcICQoLDA0ODw");
  EXPECT_EQ(EncodePosition(uid, Position(1, 2, 3)), "000g40o40k30e0000000g00g06");
  EXPECT_EQ(EncodeMessageId({process, 1, 2, 3}), "m8PHy8_T19vf4-fr7_P3-_wAAAAEAAAACAAM");
  EXPECT_EQ(EncodeLeaseToken({uid, 1, Position(1, 2, 3), 4}),
            "tAAECAwQFBgcICQoLDA0ODwAAAAAAAAABAAAAABAAIAMAAAAEaiVKBg");
}

}  // namespace
}  // namespace postkeeper
