// Names made of bits, and the opaque texts by which clients know them.
#ifndef POSTKEEPER_ZKSTORE_TEXT_ID_H_
#define POSTKEEPER_ZKSTORE_TEXT_ID_H_

#include <algorithm>
#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "zkstore/environment.h"
#include "zkstore/position.h"
#include "zkstore/text.h"

namespace postkeeper {

// 128 random bits. `Tag` keeps the kinds apart.
template <typename Tag>
struct RandomId {
  std::array<std::uint8_t, 16> bytes{};

  static RandomId Make(Environment& environment) {
    RandomId id;
    environment.FillRandom(id.bytes);
    return id;
  }
  // As stored in records; nullopt unless it is 16 bytes.
  static std::optional<RandomId> FromBytes(std::string_view text) {
    RandomId id;
    if (text.size() != id.bytes.size()) return std::nullopt;
    std::memcpy(id.bytes.data(), text.data(), text.size());
    return id;
  }
  // 32 lowercase digits, as in paths; nullopt for everything else.
  static std::optional<RandomId> FromHex(std::string_view text) {
    RandomId id;
    if (text.size() != 2 * id.bytes.size()) return std::nullopt;
    auto is_digit = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
    if (!std::all_of(text.begin(), text.end(), is_digit)) return std::nullopt;
    return FromBytes(absl::HexStringToBytes(AbslView(text)));
  }

  std::string_view view() const { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
  std::string ToBytes() const { return std::string(view()); }
  std::string ToHex() const { return absl::BytesToHexString(AbslView(view())); }

  friend auto operator<=>(const RandomId&, const RandomId&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const RandomId& id) {
    return H::combine(std::move(h), id.bytes);
  }
};

// One incarnation of a queue, a topic or a subscription. Never used again.
using Uid = RandomId<struct UidTag>;
// One run of a process: chosen at its start, kept over all its ZooKeeper sessions.
using ProcessId = RandomId<struct ProcessIdTag>;

// Who wrote a message, and which one of that batch it is. Known before the write.
struct MessageId {
  ProcessId process;
  std::uint32_t generation = 0;  // of the producer's version chain
  std::uint32_t version = 0;     // of the producer znode before the write
  std::uint16_t index = 0;       // in the batch

  friend auto operator<=>(const MessageId&, const MessageId&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const MessageId& id) {
    return H::combine(std::move(h), id.process, id.generation, id.version, id.index);
  }
};

// One giving-out of one message on one source.
struct LeaseToken {
  Uid source;  // the queue or the subscription
  std::uint64_t epoch = 0;
  Position position;
  std::uint32_t number = 0;  // counts the givings-out of this message

  friend auto operator<=>(const LeaseToken&, const LeaseToken&) = default;
};

// A state of a queue's or topic's configuration: version of the znode that holds it.
struct Etag {
  Uid uid;
  std::int32_t version = 0;

  friend auto operator<=>(const Etag&, const Etag&) = default;
};

// The texts. All are [A-Za-z0-9_-], at most kTextIdBytesMax long, and begin with a letter that tells the kind (so that
// none is taken for a flag by a command line); only a position is without it.
//
//   uid, process id   'u', 'r'   16 bytes
//   message id        'm'        process id, generation, version, index
//   lease token       't'        source uid, epoch, position, number, check
//   etag              'e'        uid, version
//   page token        'p'        check, last name
//
// Behind the letter stands base64url without padding; numbers are big-endian; a check is 4 bytes of XXH3 over what it
// belongs to, against damage and mixing up, not against forgery.
//
// A position is 26 characters of base32hex in lowercase: 13 for the first 64 bits of the topic's uid, 13 for the
// Position. Digits sort before letters there, so positions of one topic compare as text in log order.
//
// Each value has exactly one text. Decoding refuses everything else: another length, character, letter or check, and
// spare bits that are not zero. Pure functions; thread-safe; each takes well below a microsecond.
inline constexpr std::size_t kTextIdBytesMax = 128;
inline constexpr std::size_t kPositionTextBytes = 26;

std::string EncodeUid(const Uid& uid);
std::optional<Uid> DecodeUid(std::string_view text);

std::string EncodeProcessId(const ProcessId& process);
std::optional<ProcessId> DecodeProcessId(std::string_view text);

std::string EncodeMessageId(const MessageId& id);
std::optional<MessageId> DecodeMessageId(std::string_view text);

std::string EncodeLeaseToken(const LeaseToken& token);
std::optional<LeaseToken> DecodeLeaseToken(std::string_view text);

std::string EncodeEtag(const Etag& etag);
std::optional<Etag> DecodeEtag(std::string_view text);

// What a position text says, before it is known whether it is of the topic at hand.
struct PositionText {
  std::uint64_t topic = 0;  // the first 64 bits of the topic's uid
  Position position;

  bool IsOf(const Uid& uid) const;
  friend bool operator==(const PositionText&, const PositionText&) = default;
};
std::string EncodePosition(const Uid& topic, Position position);
std::optional<PositionText> DecodePosition(std::string_view text);
// The two errors in one call: MALFORMED_POSITION, POSITION_OF_DELETED_TOPIC. `topic_name` is for the text.
absl::StatusOr<Position> PositionOf(const PositionText& text, const Uid& topic, std::string_view topic_name);
absl::StatusOr<Position> ParsePosition(std::string_view text, const Uid& topic, std::string_view topic_name);

// Where a list goes on: after `last_name`, at most 63 bytes. `list` says which list it is (its kind and parent); a
// token of another list is refused.
std::string EncodePageToken(std::string_view list, std::string_view last_name);
std::optional<std::string> DecodePageToken(std::string_view list, std::string_view text);

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_TEXT_ID_H_
