#include "cli/text.h"

#include <absl/strings/ascii.h>
#include <absl/strings/escaping.h>
#include <absl/strings/match.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_format.h>
#include <absl/time/time.h>

#include <cmath>
#include <random>
#include <vector>

namespace postkeeper::cli {
namespace {

constexpr double kLongestSeconds = 10.0 * 366 * 86400;

struct Unit {
  std::string_view name;
  double factor;
};

// Of durations, in seconds.
constexpr Unit kTimeUnits[] = {{"ns", 1e-9}, {"us", 1e-6}, {"ms", 1e-3}, {"s", 1},
                               {"m", 60},    {"h", 3600},  {"d", 86400}};
constexpr Unit kByteUnits[] = {{"", 1},      {"B", 1},     {"KiB", 1024}, {"MiB", 1048576}, {"GiB", 1073741824.0},
                               {"kB", 1000}, {"KB", 1000}, {"MB", 1e6},   {"GB", 1e9}};

// Splits "1.5h30m" into 1.5 and "h", and leaves "30m". False if it does not begin with a plain decimal number.
bool TakeNumber(std::string_view& rest, double& number, std::string_view& unit) {
  std::size_t digits = 0;
  while (digits < rest.size() && (absl::ascii_isdigit(rest[digits]) || rest[digits] == '.')) ++digits;
  std::size_t end = digits;
  while (end < rest.size() && absl::ascii_isalpha(rest[end])) ++end;
  if (digits == 0 || digits > 20 || !absl::SimpleAtod(std::string(rest.substr(0, digits)), &number)) return false;
  unit = rest.substr(digits, end - digits);
  rest.remove_prefix(end);
  return true;
}

// The length of the UTF-8 sequence that `bytes` begins with; 0 if it is none (truncated, overlong, surrogate, too big).
std::size_t Utf8Length(std::string_view bytes) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char first = at(0);
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || bytes.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xC0) != 0x80) return 0;
  }
  if (first == 0xE0 && at(1) < 0xA0) return 0;
  if (first == 0xED && at(1) > 0x9F) return 0;
  if (first == 0xF0 && at(1) < 0x90) return 0;
  if (first == 0xF4 && at(1) > 0x8F) return 0;
  return length;
}

std::string Hex(unsigned __int128 number, int digits) {
  std::string text(digits, '0');
  for (int i = digits - 1; i >= 0; --i, number >>= 4) text[i] = "0123456789abcdef"[static_cast<int>(number & 15)];
  return text;
}

// FNV-1a of 128 bits.
unsigned __int128 Fnv128(std::string_view bytes) {
  unsigned __int128 hash = (static_cast<unsigned __int128>(0x6c62272e07bb0142ULL) << 64) | 0x62b821756295c58dULL;
  const unsigned __int128 prime = (static_cast<unsigned __int128>(1) << 88) | 0x13b;
  for (const char byte : bytes) hash = (hash ^ static_cast<unsigned char>(byte)) * prime;
  return hash;
}

}  // namespace

absl::StatusOr<Duration> ParseDuration(std::string_view text) {
  const auto wrong = [&](std::string_view why) {
    return absl::InvalidArgumentError(
        Cat("'", ForTerminal(text, false), "' is not a duration: ", why, ". Right would be 250ms, 30s, 1h30m or 2d"));
  };
  if (text == "0") return Duration::zero();
  if (text.empty()) return wrong("it is empty");
  if (text[0] == '-') return wrong("it is negative");
  double seconds = 0;
  for (std::string_view rest = text; !rest.empty();) {
    double number = 0;
    std::string_view name;
    if (!TakeNumber(rest, number, name)) return wrong("it needs a number and a unit");
    if (name.empty()) return wrong("it has no unit");
    const Unit* found = nullptr;
    for (const Unit& unit : kTimeUnits) {
      if (unit.name == name) found = &unit;
    }
    if (found == nullptr) return wrong(Cat("the unit '", name, "' is unknown"));
    seconds += number * found->factor;
  }
  if (!(seconds <= kLongestSeconds)) return wrong("it is above ten years");
  // Seconds and the rest apart: a double cannot hold ten years in nanoseconds.
  const double whole_seconds = std::floor(seconds);
  return std::chrono::seconds(static_cast<std::int64_t>(whole_seconds)) +
         Duration(std::llround((seconds - whole_seconds) * 1e9));
}

std::string FormatDuration(Duration duration) {
  if (duration < Duration::zero()) return Cat("-", FormatDuration(-duration));
  const std::int64_t nanos = duration.count();
  if (nanos == 0) return "0s";
  if (nanos < 1'000'000'000) return absl::StrFormat("%gms", std::round(nanos / 1e3) / 1e3);
  const std::int64_t seconds = nanos / 1'000'000'000;
  std::string text;
  if (seconds >= 86400) text += Cat(seconds / 86400, "d");
  if (seconds / 3600 % 24 != 0) text += Cat(seconds / 3600 % 24, "h");
  if (seconds / 60 % 60 != 0) text += Cat(seconds / 60 % 60, "m");
  const std::int64_t millis = nanos / 1'000'000 % 1000;
  if (seconds % 60 != 0 || millis != 0) {
    absl::StrAppendFormat(&text, "%gs", static_cast<double>(seconds % 60) + static_cast<double>(millis) / 1e3);
  }
  return text;
}

absl::StatusOr<std::int64_t> ParseBytes(std::string_view text) {
  const auto wrong = [&](std::string_view why) {
    return absl::InvalidArgumentError(
        Cat("'", ForTerminal(text, false), "' is not a size: ", why, ". Right would be 1000, 64KiB, 256MiB or 1GiB"));
  };
  std::string_view rest = text;
  double number = 0;
  std::string_view name;
  if (!TakeNumber(rest, number, name) || !rest.empty()) return wrong("it needs one number, and a unit or none");
  for (const Unit& unit : kByteUnits) {
    if (unit.name != name) continue;
    const double bytes = number * unit.factor;
    if (bytes < 1) return wrong("it is below one byte");
    if (bytes > 9e15) return wrong("it is too large");
    return static_cast<std::int64_t>(bytes);
  }
  return wrong(Cat("the unit '", name, "' is unknown"));
}

std::string Counted(std::int64_t count, std::string_view noun) { return Cat(count, " ", noun, count == 1 ? "" : "s"); }

std::string FormatBytes(std::int64_t bytes) {
  constexpr std::string_view kNames[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double number = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (std::abs(number) >= 1024 && unit + 1 < std::size(kNames)) {
    number /= 1024;
    ++unit;
  }
  const bool is_round = number == std::floor(number);
  return Cat(is_round ? absl::StrFormat("%.0f", number) : absl::StrFormat("%.1f", number), " ", kNames[unit]);
}

absl::StatusOr<WallTime> ParseTime(std::string_view text) {
  absl::Time time;
  std::string error;
  if (text == "infinite-future" || text == "infinite-past" ||
      !absl::ParseTime(absl::RFC3339_full, std::string(text), &time, &error) || time < absl::UnixEpoch() ||
      time > absl::FromUnixSeconds(9'000'000'000)) {
    return absl::InvalidArgumentError(Cat("'", ForTerminal(text, false),
                                          "' is not a time. Right would be 2030-01-31T12:00:00Z or "
                                          "2030-01-31T12:00:00.5+02:00"));
  }
  return WallTime(Duration(absl::ToUnixNanos(time)));
}

std::string FormatTime(WallTime time) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::FromUnixNanos(time.time_since_epoch().count()),
                          absl::UTCTimeZone());
}

bool IsValidUtf8(std::string_view bytes) {
  while (!bytes.empty()) {
    const std::size_t length = Utf8Length(bytes);
    if (length == 0) return false;
    bytes.remove_prefix(length);
  }
  return true;
}

std::string Base64(std::string_view bytes) { return absl::Base64Escape(absl::string_view(bytes.data(), bytes.size())); }

std::string JsonQuote(std::string_view text) {
  std::string quoted = "\"";
  quoted.reserve(text.size() + 2);
  while (!text.empty()) {
    const std::size_t length = Utf8Length(text);
    const char first = text[0];
    if (length == 0) {
      quoted += "\\ufffd";
    } else if (first == '"' || first == '\\') {
      quoted += '\\';
      quoted += first;
    } else if (first == '\n') {
      quoted += "\\n";
    } else if (first == '\t') {
      quoted += "\\t";
    } else if (first == '\r') {
      quoted += "\\r";
    } else if (static_cast<unsigned char>(first) < 0x20 || first == 0x7F) {
      absl::StrAppendFormat(&quoted, "\\u%04x", first);
    } else {
      quoted += text.substr(0, length);
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return quoted + '"';
}

std::string ForTerminal(std::string_view text, bool is_multiline) {
  std::string safe;
  safe.reserve(text.size());
  while (!text.empty()) {
    const std::size_t length = Utf8Length(text);
    const unsigned char first = static_cast<unsigned char>(text[0]);
    // C2 80 to C2 9F are the control characters of ISO 8859, which some terminals obey.
    const bool is_control = length == 0 || first < 0x20 || first == 0x7F ||
                            (length == 2 && first == 0xC2 && static_cast<unsigned char>(text[1]) < 0xA0);
    const std::size_t taken = length == 0 ? 1 : length;
    if (is_control && !(is_multiline && (first == '\n' || first == '\t'))) {
      for (std::size_t i = 0; i < taken; ++i)
        absl::StrAppendFormat(&safe, "\\x%02x", static_cast<unsigned char>(text[i]));
    } else {
      safe += text.substr(0, taken);
    }
    text.remove_prefix(taken);
  }
  return safe;
}

std::string AttributeVariable(std::string_view attribute) {
  std::string name = "POSTKEEPER_ATTRIBUTE_";
  for (const char character : attribute) {
    name += absl::ascii_isalnum(static_cast<unsigned char>(character))
                ? absl::ascii_toupper(static_cast<unsigned char>(character))
                : '_';
  }
  return name;
}

std::string RandomId() {
  std::random_device device;
  unsigned __int128 number = 0;
  for (int i = 0; i < 4; ++i) number = (number << 32) | device();
  return Hex(number, 32);
}

std::string OutputRequestId(std::string_view source, std::string_view message_id) {
  constexpr std::size_t kRequestIdBytesMax = 64;
  const std::string of_source = Hex(Fnv128(source), 16);
  std::string id = Cat(message_id, ".", of_source);
  if (id.size() > kRequestIdBytesMax) id = Hex(Fnv128(Cat(source, "\n", message_id)), 32);
  return id;
}

}  // namespace postkeeper::cli
