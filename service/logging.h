// What happened, one line per event, on stderr.
#ifndef POSTKEEPER_SERVICE_LOGGING_H_
#define POSTKEEPER_SERVICE_LOGGING_H_

#include <atomic>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "zkstore/environment.h"

namespace postkeeper {

// The order is that of --log-level's choices.
enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

// One key and its value. Refers to the text it is given, so it is to be made inside the call that logs it.
struct LogField {
  template <typename T>
    requires std::integral<T> && (!std::same_as<T, bool>)
  LogField(std::string_view k, T v) : key(k), value(static_cast<std::int64_t>(v)) {}
  LogField(std::string_view k, bool v) : key(k), value(v) {}
  LogField(std::string_view k, double v) : key(k), value(v) {}
  LogField(std::string_view k, std::string_view v) : key(k), value(v) {}
  LogField(std::string_view k, const std::string& v) : key(k), value(std::string_view(v)) {}
  LogField(std::string_view k, const char* v) : key(k), value(std::string_view(v)) {}
  LogField(std::string_view k, absl::string_view v) : key(k), value(std::string_view(v.data(), v.size())) {}
  // Written in seconds, as 0.125s.
  LogField(std::string_view k, Duration v) : key(k), value(v) {}

  std::string_view key;
  std::variant<std::int64_t, bool, double, std::string_view, Duration> value;
};

using LogFields = std::initializer_list<LogField>;

// Writes events as lines of text (`2026-01-31T12:00:00.000Z info queue created queue=orders`) or of JSON.
//
// What it keeps to: one event is one line, whatever its fields hold. Control characters, line separators, characters
// that reorder text and bytes that are not UTF-8 are written as escapes, so that a hostile name cannot forge a line or
// drive a terminal. A value is cut after kValueBytesMax. Bodies of messages are never given to it.
//
// An event of level warning or error with the same text is written at most once per kRepeatInterval; the next line
// says how many were left out (`repeats=41`), even if the event does not come again: the count is then written by the
// first line of any kind after the interval, or by Flush. At most kRepeatEntriesMax texts are remembered; when there
// are more, the oldest is forgotten and its count written.
//
// Thread-safe. Below its level a call costs one comparison. A sink must not log.
class Logger {
 public:
  static constexpr std::size_t kValueBytesMax = 1024;
  static constexpr std::size_t kRepeatEntriesMax = 256;
  static constexpr Duration kRepeatInterval = std::chrono::seconds(10);

  struct Options {
    LogLevel level = LogLevel::kInfo;
    LogFormat format = LogFormat::kText;
    std::function<void(std::string_view line)> sink;  // unset = stderr; gets the line without its end
    std::function<Instant()> now;                     // unset = CLOCK_BOOTTIME
    std::function<WallTime()> wall_now;               // unset = the system's clock
  };

  explicit Logger(Options options);
  ~Logger();
  Logger(const Logger&) = delete;
  Logger& operator=(const Logger&) = delete;

  bool IsOn(LogLevel level) const { return level >= options_.level; }

  // `event` is a text of the program, the same at every occurrence; what differs belongs into fields.
  void Log(LogLevel level, std::string_view event, LogFields fields);

  // Writes the counts of repeats that were left out so far.
  void Flush();

 private:
  struct Repeat {
    LogLevel level = LogLevel::kError;
    Instant written{};
    std::int64_t left_out = 0;
  };
  using Repeats = std::map<std::string, Repeat, std::less<>>;

  std::string Format(LogLevel level, std::string_view event, LogFields fields, std::int64_t repeats) const;
  void Write(LogLevel level, std::string_view event, LogFields fields, std::int64_t repeats);
  // True if the event is to be written now; then `repeats` is how many were left out before it.
  bool Admit(LogLevel level, std::string_view event, Instant now, std::int64_t* repeats)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::pair<std::string, Repeat> ForgetOldest() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Writes what is due at `now` and forgets it.
  void WriteDue(Instant now) ABSL_LOCKS_EXCLUDED(mu_);

  // Constant after construction.
  Options options_;

  // The earliest time at which a count may be due; so that most calls need not take the lock.
  std::atomic<Instant::rep> next_due_{Instant::max().time_since_epoch().count()};

  absl::Mutex mu_;
  Repeats repeats_ ABSL_GUARDED_BY(mu_);
};

// The process's logger. Before ConfigureLogging: text, level info. ConfigureLogging is to be called once, before other
// threads log.
void ConfigureLogging(LogLevel level, LogFormat format);
Logger& ProcessLogger();

inline void LogDebug(std::string_view event, LogFields fields = {}) {
  ProcessLogger().Log(LogLevel::kDebug, event, fields);
}
inline void LogInfo(std::string_view event, LogFields fields = {}) {
  ProcessLogger().Log(LogLevel::kInfo, event, fields);
}
inline void LogWarning(std::string_view event, LogFields fields = {}) {
  ProcessLogger().Log(LogLevel::kWarning, event, fields);
}
inline void LogError(std::string_view event, LogFields fields = {}) {
  ProcessLogger().Log(LogLevel::kError, event, fields);
}
// To be called before the process ends.
void FlushLog();

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_LOGGING_H_
