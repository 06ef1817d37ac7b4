#include "zkstore/text_id.h"

#include <xxhash.h>

#include <array>
#include <cstring>
#include <utility>

#include "zkstore/errors.h"

namespace postkeeper {
namespace {

constexpr std::string_view kBase64Digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
constexpr std::string_view kBase32Digits = "0123456789abcdefghijklmnopqrstuv";

constexpr std::uint8_t kNoDigit = 0xFF;

constexpr std::array<std::uint8_t, 256> ValuesOf(std::string_view digits) {
  std::array<std::uint8_t, 256> values{};
  values.fill(kNoDigit);
  for (std::size_t i = 0; i < digits.size(); ++i) {
    values[static_cast<unsigned char>(digits[i])] = static_cast<std::uint8_t>(i);
  }
  return values;
}

// The bytes behind a text, without a trip to the heap: each message that passes needs several of them.
class ShortBytes {
 public:
  void Add(char byte) { bytes_[size_++] = byte; }
  void Add(std::string_view bytes) {
    std::memcpy(bytes_.data() + size_, bytes.data(), bytes.size());
    size_ += bytes.size();
  }
  template <typename Integer>
  void AddBigEndian(Integer value) {
    for (int shift = (static_cast<int>(sizeof(Integer)) - 1) * 8; shift >= 0; shift -= 8) {
      Add(static_cast<char>(value >> shift & 0xFF));
    }
  }
  std::size_t size() const { return size_; }
  std::string_view view() const { return {bytes_.data(), size_}; }

 private:
  std::array<char, kTextIdBytesMax> bytes_;  // no text stands for more
  std::size_t size_ = 0;
};

// Writes bytes as digits of `Bits` bits each, most significant first; spare bits of the last digit are zero. Returns
// where the digits end.
template <int Bits>
char* WriteDigits(std::string_view bytes, char* text) {
  constexpr std::string_view kDigits = Bits == 6 ? kBase64Digits : kBase32Digits;
  static_assert(kDigits.size() == (1u << Bits));
  std::uint32_t pending = 0;
  int pending_bits = 0;
  for (const char c : bytes) {
    pending = (pending << 8 | static_cast<unsigned char>(c)) & 0xFFFF;
    pending_bits += 8;
    while (pending_bits >= Bits) {
      pending_bits -= Bits;
      *text++ = kDigits[pending >> pending_bits & ((1u << Bits) - 1)];
    }
  }
  if (pending_bits > 0) *text++ = kDigits[pending << (Bits - pending_bits) & ((1u << Bits) - 1)];
  return text;
}

template <int Bits>
constexpr std::size_t DigitsOf(std::size_t bytes) {
  return (bytes * 8 + Bits - 1) / Bits;
}

// False unless `text` is what WriteDigits would write for some bytes. Of at most kTextIdBytesMax.
template <int Bits>
bool ReadDigits(std::string_view text, ShortBytes& bytes) {
  static constexpr std::array<std::uint8_t, 256> kValues = ValuesOf(Bits == 6 ? kBase64Digits : kBase32Digits);
  std::uint32_t pending = 0;
  int pending_bits = 0;
  for (const char c : text) {
    const std::uint8_t value = kValues[static_cast<unsigned char>(c)];
    if (value == kNoDigit) return false;
    pending = (pending << Bits | value) & 0xFFFF;
    pending_bits += Bits;
    if (pending_bits >= 8) {
      pending_bits -= 8;
      bytes.Add(static_cast<char>(pending >> pending_bits & 0xFF));
    }
  }
  // A whole digit left over, or spare bits that are not zero: another text for the same bytes.
  return pending_bits < Bits && (pending & ((1u << pending_bits) - 1)) == 0;
}

// Takes fields from the front of bytes whose length has been checked.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  template <typename Integer>
  Integer Take() {
    Integer value = 0;
    for (const char c : Take(sizeof(Integer))) {
      value = static_cast<Integer>(value << 8 | static_cast<unsigned char>(c));
    }
    return value;
  }
  template <typename Id>
  Id TakeId() {
    return *Id::FromBytes(Take(Id{}.bytes.size()));
  }
  std::string_view Take(std::size_t size) {
    const std::string_view front = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return front;
  }
  std::string_view rest() const { return bytes_; }

 private:
  std::string_view bytes_;
};

std::uint32_t CheckOf(std::string_view bytes, std::string_view more = "") {
  const XXH64_hash_t seed = more.empty() ? 0 : XXH3_64bits(more.data(), more.size());
  return static_cast<std::uint32_t>(XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed));
}

std::string MakeText(char letter, std::string_view bytes) {
  std::string text(1 + DigitsOf<6>(bytes.size()), letter);
  WriteDigits<6>(bytes, text.data() + 1);
  return text;
}

// The bytes behind the letter, if they are of the right number (0 = any).
std::optional<ShortBytes> ReadText(char letter, std::size_t size, std::string_view text) {
  if (text.empty() || text.size() > kTextIdBytesMax || text.front() != letter) return std::nullopt;
  if (size != 0 && text.size() != 1 + DigitsOf<6>(size)) return std::nullopt;
  ShortBytes bytes;
  if (!ReadDigits<6>(text.substr(1), bytes)) return std::nullopt;
  return bytes;
}

template <typename Id>
std::optional<Id> ReadId(char letter, std::string_view text) {
  const std::optional<ShortBytes> bytes = ReadText(letter, Id{}.bytes.size(), text);
  if (!bytes) return std::nullopt;
  return Id::FromBytes(bytes->view());
}

constexpr std::size_t kMessageIdBytes = 16 + 4 + 4 + 2;
constexpr std::size_t kLeaseTokenBytes = 16 + 8 + 8 + 4 + 4;
constexpr std::size_t kEtagBytes = 16 + 4;
constexpr std::size_t kCheckBytes = 4;
constexpr std::size_t kLastNameBytesMax = 63;
static_assert(1 + DigitsOf<6>(kLeaseTokenBytes) <= kTextIdBytesMax);
static_assert(1 + DigitsOf<6>(kCheckBytes + kLastNameBytesMax) <= kTextIdBytesMax);
static_assert(2 * DigitsOf<5>(8) == kPositionTextBytes);

std::uint64_t TopicBits(const Uid& uid) { return Reader(uid.view()).Take<std::uint64_t>(); }

}  // namespace

std::string EncodeUid(const Uid& uid) { return MakeText('u', uid.view()); }
std::optional<Uid> DecodeUid(std::string_view text) { return ReadId<Uid>('u', text); }

std::string EncodeProcessId(const ProcessId& process) { return MakeText('r', process.view()); }
std::optional<ProcessId> DecodeProcessId(std::string_view text) { return ReadId<ProcessId>('r', text); }

std::string EncodeMessageId(const MessageId& id) {
  ShortBytes bytes;
  bytes.Add(id.process.view());
  bytes.AddBigEndian(id.generation);
  bytes.AddBigEndian(id.version);
  bytes.AddBigEndian(id.index);
  return MakeText('m', bytes.view());
}

std::optional<MessageId> DecodeMessageId(std::string_view text) {
  const std::optional<ShortBytes> bytes = ReadText('m', kMessageIdBytes, text);
  if (!bytes) return std::nullopt;
  Reader reader(bytes->view());
  MessageId id;
  id.process = reader.TakeId<ProcessId>();
  id.generation = reader.Take<std::uint32_t>();
  id.version = reader.Take<std::uint32_t>();
  id.index = reader.Take<std::uint16_t>();
  return id;
}

std::string EncodeLeaseToken(const LeaseToken& token) {
  ShortBytes bytes;
  bytes.Add(token.source.view());
  bytes.AddBigEndian(token.epoch);
  bytes.AddBigEndian(token.position.value());
  bytes.AddBigEndian(token.number);
  bytes.AddBigEndian(CheckOf(bytes.view()));
  return MakeText('t', bytes.view());
}

std::optional<LeaseToken> DecodeLeaseToken(std::string_view text) {
  const std::optional<ShortBytes> bytes = ReadText('t', kLeaseTokenBytes, text);
  if (!bytes) return std::nullopt;
  Reader reader(bytes->view());
  LeaseToken token;
  token.source = reader.TakeId<Uid>();
  token.epoch = reader.Take<std::uint64_t>();
  token.position = Position::FromValue(reader.Take<std::uint64_t>());
  token.number = reader.Take<std::uint32_t>();
  const std::string_view checked = bytes->view().substr(0, kLeaseTokenBytes - kCheckBytes);
  if (reader.Take<std::uint32_t>() != CheckOf(checked)) return std::nullopt;
  return token;
}

std::string EncodeEtag(const Etag& etag) {
  ShortBytes bytes;
  bytes.Add(etag.uid.view());
  bytes.AddBigEndian(static_cast<std::uint32_t>(etag.version));
  return MakeText('e', bytes.view());
}

std::optional<Etag> DecodeEtag(std::string_view text) {
  const std::optional<ShortBytes> bytes = ReadText('e', kEtagBytes, text);
  if (!bytes) return std::nullopt;
  Reader reader(bytes->view());
  Etag etag;
  etag.uid = reader.TakeId<Uid>();
  etag.version = static_cast<std::int32_t>(reader.Take<std::uint32_t>());
  return etag;
}

bool PositionText::IsOf(const Uid& uid) const { return topic == TopicBits(uid); }

std::string EncodePosition(const Uid& topic, Position position) {
  ShortBytes number;
  number.AddBigEndian(position.value());
  std::string text(kPositionTextBytes, '\0');
  char* middle = WriteDigits<5>(topic.view().substr(0, 8), text.data());
  WriteDigits<5>(number.view(), middle);
  return text;
}

std::optional<PositionText> DecodePosition(std::string_view text) {
  if (text.size() != kPositionTextBytes) return std::nullopt;
  ShortBytes bytes;
  if (!ReadDigits<5>(text.substr(0, kPositionTextBytes / 2), bytes)) return std::nullopt;
  if (!ReadDigits<5>(text.substr(kPositionTextBytes / 2), bytes)) return std::nullopt;
  Reader reader(bytes.view());
  PositionText position;
  position.topic = reader.Take<std::uint64_t>();
  position.position = Position::FromValue(reader.Take<std::uint64_t>());
  return position;
}

absl::StatusOr<Position> PositionOf(const PositionText& text, const Uid& topic, std::string_view topic_name) {
  if (text.IsOf(topic)) return text.position;
  return MakeError(Reason::kPositionOfDeletedTopic,
                   Cat("the position is not of this ", topic_name,
                       " but of another topic, perhaps a deleted one of the same name. Start at earliest or "
                       "latest instead"),
                   {.resource = std::string(topic_name)});
}

absl::StatusOr<Position> ParsePosition(std::string_view text, const Uid& topic, std::string_view topic_name) {
  const std::optional<PositionText> decoded = DecodePosition(text);
  if (!decoded) {
    return MakeError(Reason::kMalformedPosition,
                     Cat(Quoted(text),
                         " is not a position: those have 26 characters 0-9 and a-v. Give one "
                         "back as it was received"),
                     {.resource = std::string(topic_name)});
  }
  return PositionOf(*decoded, topic, topic_name);
}

std::string EncodePageToken(std::string_view list, std::string_view last_name) {
  ShortBytes bytes;
  bytes.AddBigEndian(CheckOf(last_name, list));
  bytes.Add(last_name.substr(0, kLastNameBytesMax));
  return MakeText('p', bytes.view());
}

std::optional<std::string> DecodePageToken(std::string_view list, std::string_view text) {
  const std::optional<ShortBytes> bytes = ReadText('p', 0, text);
  if (!bytes || bytes->size() < kCheckBytes || bytes->size() > kCheckBytes + kLastNameBytesMax) return std::nullopt;
  Reader reader(bytes->view());
  const std::uint32_t check = reader.Take<std::uint32_t>();
  if (check != CheckOf(reader.rest(), list)) return std::nullopt;
  return std::string(reader.rest());
}

}  // namespace postkeeper
