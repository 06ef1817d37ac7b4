// Text in and out: durations, sizes and times as people type them; bytes of strangers as they may be shown.
//
// All functions are pure. Parsers answer INVALID_ARGUMENT with a sentence that says what is wrong and what would be
// right.
#ifndef POSTKEEPER_CLI_TEXT_H_
#define POSTKEEPER_CLI_TEXT_H_

#include <absl/status/statusor.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

namespace postkeeper::cli {

// The pieces, texts and numbers, one after the other. (absl::StrCat of a library built for C++14 does not take
// std::string_view.)
template <typename... Pieces>
std::string Cat(const Pieces&... pieces) {
  std::string text;
  const auto append = [&text](const auto& piece) {
    using Piece = std::decay_t<decltype(piece)>;
    if constexpr (std::is_convertible_v<const Piece&, std::string_view>) {
      text += std::string_view(piece);
    } else if constexpr (std::is_arithmetic_v<Piece>) {
      text += std::to_string(piece);
    } else {
      text.append(piece.data(), piece.size());
    }
  };
  (append(pieces), ...);
  return text;
}

using Duration = std::chrono::nanoseconds;
using WallTime = std::chrono::sys_time<std::chrono::nanoseconds>;

// "30s", "1h30m", "1.5m", "250ms", "2d", "0"; never negative, at most ten years.
absl::StatusOr<Duration> ParseDuration(std::string_view text);
// "1h30m", "1.5s"; below one second in milliseconds: "250ms", "0.1ms".
std::string FormatDuration(Duration duration);

// "1000", "64KiB", "256MiB", "1GiB", also kB, MB, GB (powers of ten). Above 0.
absl::StatusOr<std::int64_t> ParseBytes(std::string_view text);
// "1 message", "2 messages".
std::string Counted(std::int64_t count, std::string_view noun);
// "256 MiB" if it is a round number of them, else with one figure after the point; below 1 KiB "17 B".
std::string FormatBytes(std::int64_t bytes);

// RFC 3339: "2030-01-31T12:00:00Z", "2030-01-31T12:00:00.5+02:00".
absl::StatusOr<WallTime> ParseTime(std::string_view text);
// RFC 3339 in UTC, with milliseconds.
std::string FormatTime(WallTime time);

bool IsValidUtf8(std::string_view bytes);
std::string Base64(std::string_view bytes);
// With its quotes. What is not UTF-8 becomes U+FFFD, byte by byte, so that the result is always valid JSON.
std::string JsonQuote(std::string_view text);

// Safe to send to a terminal: control characters (line feed and tab excepted, if `is_multiline`) become \xNN.
std::string ForTerminal(std::string_view text, bool is_multiline);

// The environment variable that carries a message's attribute: POSTKEEPER_ATTRIBUTE_ and the name in capitals, with
// every character but A-Z, 0-9 and _ replaced by _.
std::string AttributeVariable(std::string_view attribute);

// 128 random bits as 32 hexadecimal digits: a request_id.
std::string RandomId();

// The request_id under which the output for one message of a source is published, the same at every attempt. Differs
// between sources, since two subscriptions can deliver the same message.
std::string OutputRequestId(std::string_view source, std::string_view message_id);

}  // namespace postkeeper::cli

#endif  // POSTKEEPER_CLI_TEXT_H_
