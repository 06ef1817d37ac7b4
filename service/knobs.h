// The one table of everything that can be configured, and how a value is read. Help, documentation, checks and the
// configuration itself all follow from it.
#ifndef POSTKEEPER_SERVICE_KNOBS_H_
#define POSTKEEPER_SERVICE_KNOBS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "service/config.h"

namespace postkeeper {

enum class KnobKind {
  kAddress,         // host:port
  kAddressOrEmpty,  // the same, or nothing
  kAddressOrOff,    // the same, or "off"
  kEnsemble,        // host:port,host:port/chroot, or nothing
  kZnode,           // /a/b
  kDirectory,
  kChoice,    // one of Knob::choices
  kCount,     // a whole number
  kBytes,     // 1048576, 1024KiB, 1MiB
  kDuration,  // 500ms, 10s, 5m, 12h
};

struct Knob {
  std::string_view name;
  std::string_view group;
  KnobKind kind;
  std::string_view default_value;  // as one would type it; "auto" where it follows from other things
  std::int64_t min = 0;            // in bytes, milliseconds, or plain
  std::int64_t max = 0;
  std::string_view choices;  // a|b|c, in the order of the enumeration behind it
  std::string_view what;     // what it does, and why its default and bounds are what they are
  std::variant<std::string Config::*, std::int64_t Config::*, int Config::*, Duration Config::*, LogLevel Config::*,
               LogFormat Config::*, bool Config::*>
      member;
};

std::span<const Knob> Knobs();
const Knob* FindKnob(std::string_view name);

// Checks `text` and stores it in its place. "auto" is stored as 0, empty or false, for the caller to replace; it is
// accepted only where it is the default. On success returns the text in its plainest form (10000ms = 10s). An error is
// what follows "--name: ".
absl::StatusOr<std::string> StoreKnob(const Knob& knob, std::string_view text, Config* config);

// The bounds in words: "16KiB to 900KiB", "text|json"; empty if there are none.
std::string BoundsText(const Knob& knob);
std::string_view UnitText(const Knob& knob);
std::string FormatBytes(std::int64_t bytes);
std::string FormatDuration(std::int64_t milliseconds);

// 500ms, 10s, 5m, 12h; nullopt: it is no such time.
std::optional<Duration> ReadDuration(std::string_view text);

std::string EnvironmentName(std::string_view knob_name);  // listen -> POSTKEEPER_LISTEN
// The candidate that differs least from `name`, or nothing if none is near.
std::string NearestName(std::string_view name, std::span<const std::string> candidates);

// What --help and --help-markdown print.
std::string HelpText();
std::string HelpMarkdown();

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_KNOBS_H_
