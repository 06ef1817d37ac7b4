#include "zkstore/text.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_format.h"

namespace postkeeper {
namespace {

// The length of the UTF-8 character at the front of `text`, 0 if there is none.
std::size_t Utf8CharacterBytes(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  std::size_t length = 0;
  char32_t value = 0;
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
    value = lead & 0x1F;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    value = lead & 0x0F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    value = lead & 0x07;
  } else {
    return 0;
  }
  if (text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
    value = value << 6 | (byte(i) & 0x3F);
  }
  constexpr char32_t kShortest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool is_surrogate = value >= 0xD800 && value <= 0xDFFF;
  return value >= kShortest[length] && value <= 0x10FFFF && !is_surrogate ? length : 0;
}

}  // namespace

std::string Printable(std::string_view text, std::size_t bytes_max) {
  constexpr std::string_view kCut = "...";
  std::string printable;
  while (!text.empty()) {
    const std::size_t length = Utf8CharacterBytes(text);
    const unsigned char first = static_cast<unsigned char>(text.front());
    std::string piece;
    if (length == 0 || first < 0x20 || first == 0x7F) {
      piece = absl::StrFormat("\\x%02x", first);
    } else {
      piece = std::string(text.substr(0, length));
    }
    if (printable.size() + piece.size() > bytes_max) {
      // Make room for the sign that something is missing, whole characters at a time.
      while (!printable.empty() && printable.size() + kCut.size() > bytes_max) {
        while ((static_cast<unsigned char>(printable.back()) & 0xC0) == 0x80) printable.pop_back();
        printable.pop_back();
      }
      if (printable.size() + kCut.size() <= bytes_max) printable += kCut;
      return printable;
    }
    printable += piece;
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return printable;
}

std::string Quoted(std::string_view text, std::size_t bytes_max) { return Cat("\"", Printable(text, bytes_max), "\""); }

std::string Readable(Duration duration) {
  struct Unit {
    Duration length;
    std::string_view name;
  };
  static constexpr Unit kWhole[] = {
      {std::chrono::hours(1), "h"}, {std::chrono::minutes(1), "min"}, {std::chrono::seconds(1), "s"}};
  static constexpr Unit kSmall[] = {
      {std::chrono::milliseconds(1), "ms"}, {std::chrono::microseconds(1), "us"}, {Duration(1), "ns"}};
  constexpr Duration kDay = std::chrono::hours(24);

  if (duration == Duration::zero()) return "0s";
  if (duration % kDay == Duration::zero() && duration > kDay) return Cat(duration / kDay, " days");
  for (const Unit& unit : kWhole) {
    if (duration % unit.length == Duration::zero()) return Cat(duration / unit.length, unit.name);
  }
  if (duration < std::chrono::seconds(1) && duration > -std::chrono::seconds(1)) {
    for (const Unit& unit : kSmall) {
      if (duration % unit.length == Duration::zero()) return Cat(duration / unit.length, unit.name);
    }
  }
  return absl::StrFormat("%.12gs", std::chrono::duration<double>(duration).count());
}

}  // namespace postkeeper
