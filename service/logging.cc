#include "service/logging.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

constexpr std::array<std::string_view, 4> kLevelNames = {"debug", "info", "warning", "error"};

std::string_view NameOf(LogLevel level) { return kLevelNames[static_cast<std::size_t>(level)]; }

// spdlog does the writing: whole lines, from many threads, flushed at once.
void WriteToStderr(std::string_view line) {
  static spdlog::logger* const logger = [] {
    auto* made = new spdlog::logger("postkeeper", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_pattern("%v");
    made->set_level(spdlog::level::trace);
    made->flush_on(spdlog::level::trace);
    return made;
  }();
  logger->log(spdlog::level::info, spdlog::string_view_t(line.data(), line.size()));
}

Instant BootNow() {
  timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  return Instant(std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec));
}

WallTime SystemNow() {
  return std::chrono::time_point_cast<std::chrono::milliseconds>(std::chrono::system_clock::now());
}

std::string Timestamp(WallTime time) {
  const std::int64_t ms = time.time_since_epoch().count();
  const std::int64_t fraction = ((ms % 1000) + 1000) % 1000;
  const time_t seconds = (ms - fraction) / 1000;
  tm parts;
  gmtime_r(&seconds, &parts);
  return absl::StrFormat("%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday,
                         parts.tm_hour, parts.tm_min, parts.tm_sec, fraction);
}

// The character at the front of `text` and its length; a byte that starts no valid UTF-8 has length 0.
struct Character {
  char32_t code = 0;
  std::size_t length = 0;
};

Character FrontOf(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const std::size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < length) return {};
  char32_t code = lead & (0xFF >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {};
    code = code << 6 | (byte(i) & 0x3F);
  }
  static constexpr std::array<char32_t, 5> kSmallest = {0, 0, 0x80, 0x800, 0x10000};
  const bool is_surrogate = code >= 0xD800 && code <= 0xDFFF;
  if (code < kSmallest[length] || code > 0x10FFFF || is_surrogate) return {};
  return {code, length};
}

// Characters that end a line, steer a terminal, or change the direction in which the rest of a line is shown.
bool IsHarmful(char32_t code) {
  return code < 0x20 || (code >= 0x7F && code <= 0x9F) || code == 0x2028 || code == 0x2029 ||
         (code >= 0x200E && code <= 0x200F) || (code >= 0x202A && code <= 0x202E) ||
         (code >= 0x2066 && code <= 0x2069) || code == 0xFEFF;
}

void AppendEscaped(std::string_view text, LogFormat format, std::string* out) {
  const bool is_cut = text.size() > Logger::kValueBytesMax;
  if (is_cut) text = text.substr(0, Logger::kValueBytesMax);
  while (!text.empty()) {
    const Character c = FrontOf(text);
    if (c.length == 0) {
      // JSON has no way to write a byte that is not text.
      if (format == LogFormat::kJson) {
        out->append("\\ufffd");
      } else {
        absl::StrAppendFormat(out, "\\x%02x", static_cast<unsigned char>(text[0]));
      }
      text.remove_prefix(1);
      continue;
    }
    if (c.code == '"' || c.code == '\\') {
      out->push_back('\\');
      out->push_back(text[0]);
    } else if (c.code == '\n') {
      out->append("\\n");
    } else if (IsHarmful(c.code)) {
      absl::StrAppendFormat(out, "\\u%04x", static_cast<unsigned>(c.code));
    } else {
      out->append(text.substr(0, c.length));
    }
    text.remove_prefix(c.length);
  }
  if (is_cut) out->append("...");
}

bool NeedsQuotes(std::string_view text) {
  if (text.empty()) return true;
  return std::any_of(text.begin(), text.end(), [](char c) {
    const auto u = static_cast<unsigned char>(c);
    return u <= ' ' || u >= 0x7F || c == '"' || c == '=' || c == '\\';
  });
}

void AppendString(std::string_view text, LogFormat format, std::string* out) {
  if (format == LogFormat::kText && !NeedsQuotes(text) && text.size() <= Logger::kValueBytesMax) {
    out->append(text);
    return;
  }
  out->push_back('"');
  AppendEscaped(text, format, out);
  out->push_back('"');
}

struct ValueAppender {
  LogFormat format;
  std::string* out;

  void operator()(std::int64_t value) const { *out += Cat(value); }
  void operator()(bool value) const { out->append(value ? "true" : "false"); }
  void operator()(double value) const {
    if (std::isfinite(value)) {
      *out += Cat(value);
    } else {
      AppendString(std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf", format, out);
    }
  }
  void operator()(std::string_view value) const { AppendString(value, format, out); }
  void operator()(Duration value) const {
    // A number in JSON, so that it can be compared; its unit is seconds.
    *out += Cat(std::chrono::duration<double>(value).count(), format == LogFormat::kText ? "s" : "");
  }
};

void AppendField(const LogField& field, LogFormat format, std::string* out) {
  if (format == LogFormat::kText) {
    *out += Cat(" ", field.key, "=");
  } else {
    *out += Cat(",\"", field.key, "\":");
  }
  std::visit(ValueAppender{format, out}, field.value);
}

}  // namespace

Logger::Logger(Options options) : options_(std::move(options)) {
  if (!options_.sink) options_.sink = WriteToStderr;
  if (!options_.now) options_.now = BootNow;
  if (!options_.wall_now) options_.wall_now = SystemNow;
}

Logger::~Logger() { Flush(); }

std::string Logger::Format(LogLevel level, std::string_view event, LogFields fields, std::int64_t repeats) const {
  const LogFormat format = options_.format;
  std::string line;
  line.reserve(160);
  if (format == LogFormat::kText) {
    line += Cat(Timestamp(options_.wall_now()), " ", NameOf(level), " ");
    AppendEscaped(event, format, &line);
  } else {
    line += Cat("{\"time\":\"", Timestamp(options_.wall_now()), "\",\"level\":\"", NameOf(level), "\",\"event\":");
    AppendString(event, format, &line);
  }
  for (const LogField& field : fields) AppendField(field, format, &line);
  if (repeats > 0) AppendField({"repeats", repeats}, format, &line);
  if (format == LogFormat::kJson) line.push_back('}');
  return line;
}

void Logger::Write(LogLevel level, std::string_view event, LogFields fields, std::int64_t repeats) {
  options_.sink(Format(level, event, fields, repeats));
}

void Logger::Log(LogLevel level, std::string_view event, LogFields fields) {
  if (!IsOn(level)) return;
  const Instant now = options_.now();
  std::int64_t repeats = 0;
  std::optional<std::pair<std::string, Repeat>> forgotten;
  if (level >= LogLevel::kWarning) {
    absl::MutexLock lock(&mu_);
    if (!Admit(level, event, now, &repeats)) return;
    if (repeats_.size() > kRepeatEntriesMax) forgotten = ForgetOldest();
  }
  if (forgotten && forgotten->second.left_out > 0) {
    Write(forgotten->second.level, forgotten->first, {}, forgotten->second.left_out);
  }
  if (now.time_since_epoch().count() >= next_due_.load(std::memory_order_relaxed)) WriteDue(now);
  Write(level, event, fields, repeats);
}

std::pair<std::string, Logger::Repeat> Logger::ForgetOldest() {
  const auto oldest = std::min_element(repeats_.begin(), repeats_.end(), [](const auto& a, const auto& b) {
    return a.second.written < b.second.written;
  });
  std::pair<std::string, Repeat> entry = *oldest;
  repeats_.erase(oldest);
  return entry;
}

bool Logger::Admit(LogLevel level, std::string_view event, Instant now, std::int64_t* repeats) {
  auto it = repeats_.find(event);
  if (it == repeats_.end()) {
    repeats_.emplace(std::string(event), Repeat{level, now, 0});
    return true;
  }
  Repeat& repeat = it->second;
  if (now - repeat.written < kRepeatInterval) {
    ++repeat.left_out;
    const Instant::rep due = (repeat.written + kRepeatInterval).time_since_epoch().count();
    if (due < next_due_.load(std::memory_order_relaxed)) next_due_.store(due, std::memory_order_relaxed);
    return false;
  }
  *repeats = std::exchange(repeat.left_out, 0);
  repeat.written = now;
  return true;
}

void Logger::WriteDue(Instant now) {
  std::vector<std::pair<std::string, Repeat>> due;
  {
    absl::MutexLock lock(&mu_);
    Instant next = Instant::max();
    std::erase_if(repeats_, [&](const auto& entry) {
      const Repeat& repeat = entry.second;
      if (repeat.left_out == 0) return false;
      if (now - repeat.written < kRepeatInterval) {
        next = std::min(next, repeat.written + kRepeatInterval);
        return false;
      }
      due.emplace_back(entry.first, repeat);
      return true;
    });
    next_due_.store(next.time_since_epoch().count(), std::memory_order_relaxed);
  }
  for (const auto& [text, repeat] : due) Write(repeat.level, text, {}, repeat.left_out);
}

void Logger::Flush() { WriteDue(Instant::max()); }

namespace {

std::unique_ptr<Logger>& ProcessLoggerSlot() {
  // Never destroyed: threads may log while the process ends.
  static auto* const slot = new std::unique_ptr<Logger>(std::make_unique<Logger>(Logger::Options{}));
  return *slot;
}

}  // namespace

void ConfigureLogging(LogLevel level, LogFormat format) {
  Logger::Options options;
  options.level = level;
  options.format = format;
  ProcessLoggerSlot() = std::make_unique<Logger>(std::move(options));
}

Logger& ProcessLogger() { return *ProcessLoggerSlot(); }

void FlushLog() { ProcessLogger().Flush(); }

}  // namespace postkeeper
