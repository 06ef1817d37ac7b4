#include "service/knobs.h"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

constexpr std::int64_t kKiB = 1024;
constexpr std::int64_t kMiB = 1024 * kKiB;
constexpr std::int64_t kGiB = 1024 * kMiB;
constexpr std::int64_t kSecond = 1000;
constexpr std::int64_t kMinute = 60 * kSecond;
constexpr std::int64_t kHour = 60 * kMinute;

constexpr std::string_view kServing = "Serving";
constexpr std::string_view kStore = "ZooKeeper and data";
constexpr std::string_view kLimits = "Limits";
constexpr std::string_view kSeeing = "Logs and metrics";

constexpr Knob kKnobs[] = {
    {"listen", kServing, KnobKind::kAddress, "127.0.0.1:7411", 0, 0, "",
     "Where gRPC calls are served. Loopback by default, since there is no access control yet; port 0 takes a free one.",
     &Config::listen},
    {"metrics-listen", kServing, KnobKind::kAddressOrOff, "127.0.0.1:7412", 0, 0, "",
     "Where Prometheus reads the metrics; off = nowhere. A port of its own, so that it can be kept inside.",
     &Config::metrics_listen},
    {"advertise", kServing, KnobKind::kAddressOrEmpty, "", 0, 0, "",
     "The address under which other replicas reach this one, host:port. Empty = the one listened on; if that is every "
     "address (0.0.0.0, [::]), this host's first that is not loopback. To be given where others reach it by another.",
     &Config::advertise},
    {"threads", kServing, KnobKind::kCount, "auto", 1, 64, "",
     "Threads that run the engines. auto = one per core, at most 4: ZooKeeper is the bottleneck beyond that.",
     &Config::threads},
    {"auto-create", kServing, KnobKind::kChoice, "auto", 0, 0, "off|on|auto",
     "Whether the first use of an unknown queue or topic of namespace default creates it. auto = on with the embedded "
     "ZooKeeper, off with --zookeeper, where a mistyped name should be an error.",
     &Config::auto_create_is_on},
    {"drain-timeout", kServing, KnobKind::kDuration, "25s", kSecond, kHour, "",
     "How long a stopping server lets calls and streams end. Below the 30 s after which Kubernetes kills.",
     &Config::drain_timeout},

    {"zookeeper", kStore, KnobKind::kEnsemble, "", 0, 0, "",
     "The ensemble to use: host:port,host:port[/chroot]. Empty = start one of its own, in the data directory.",
     &Config::zookeeper},
    {"root", kStore, KnobKind::kZnode, "/postkeeper", 0, 0, "",
     "The znode below which everything is kept. One per installation when several share an ensemble.", &Config::root},
    {"data-dir", kStore, KnobKind::kDirectory, "auto", 0, 0, "",
     "Where the embedded ZooKeeper keeps its data, and where this replica remembers its id. auto = "
     "/var/lib/postkeeper for root, else $XDG_DATA_HOME/postkeeper or ~/.local/share/postkeeper.",
     &Config::data_dir},
    {"session-timeout", kStore, KnobKind::kDuration, "10s", 2 * kSecond, kMinute, "",
     "After how much silence ZooKeeper takes this replica for dead and others take its queues over. Below 2 s a long "
     "pause of either side's memory management ends sessions; above 60 s a crash stalls its queues too long.",
     &Config::session_timeout},
    {"balance-after", kStore, KnobKind::kDuration, "30s", kSecond, 24 * kHour, "",
     "A replica that has joined is given its share of the queues and topics when it has been there for so long, and "
     "only "
     "of those that have been with their owner for as long. Longer than a restart, so that they don't move twice.",
     &Config::balance_after},
    {"zookeeper-heap", kStore, KnobKind::kBytes, "auto", 256 * kMiB, 31 * kGiB, "",
     "The memory of the embedded ZooKeeper, which keeps everything stored in memory. auto = 1.5 x (--stored-bytes-max "
     "+ "
     "1,000 x --batch-bytes-max), at most half of this machine's memory; taken only when needed. From 32 GiB on Java's "
     "references double in size.",
     &Config::zookeeper_heap_bytes},
    {"embedded-zookeeper-port", kStore, KnobKind::kCount, "0", 0, 65535, "",
     "The loopback port of the embedded ZooKeeper. 0 = a free one: nobody but this server needs to know it.",
     &Config::embedded_zookeeper_port},

    {"message-bytes-max", kLimits, KnobKind::kBytes, "512KiB", kKiB, 512 * kKiB, "",
     "The largest message. A batch with one message of 512 KiB still fits ZooKeeper's limit of 1 MiB for a request "
     "that does something else besides.",
     &Config::message_bytes_max},
    {"batch-bytes-max", kLimits, KnobKind::kBytes, "512KiB", 16 * kKiB, 900 * kKiB, "",
     "The largest batch, that is znode. Larger ones carry more bytes per second and cost ZooKeeper more memory: it "
     "keeps its latest 500 requests. 900 KiB is what ZooKeeper's 1 MiB leaves.",
     &Config::batch_bytes_max},
    {"batch-messages-max", kLimits, KnobKind::kCount, "4096", 1, 4096, "",
     "Messages in a batch. A position has 12 bits for the place in a batch.", &Config::batch_messages_max},
    {"segment-batches-max", kLimits, KnobKind::kCount, "4096", 2, 16384, "",
     "Batches in a segment, that is children of one znode. The list of 16,384 names still fits one answer of "
     "ZooKeeper; few make it write more segments. Tests use few.",
     &Config::segment_batches_max},
    {"appends-in-flight", kLimits, KnobKind::kCount, "4", 1, 16, "",
     "Batches of one log on their way to ZooKeeper at a time. More hide a slow network; each adds a batch to what a "
     "settlement has to wait for.",
     &Config::appends_in_flight},
    {"stored-bytes-max", kLimits, KnobKind::kBytes, "1GiB", 16 * kMiB, 16 * kGiB, "",
     "All messages stored, together. ZooKeeper keeps them in memory; past this limit Enqueue and Publish answer "
     "STORE_FULL. Lowered by itself to what --zookeeper-heap can hold.",
     &Config::stored_bytes_max},
    {"cache-bytes-max", kLimits, KnobKind::kBytes, "64MiB", 8 * kMiB, 16 * kGiB, "",
     "Memory for batches that were read and are to be delivered, all logs together. 8 MiB hold one read-ahead of the "
     "largest batches.",
     &Config::cache_bytes_max},
    {"request-id-window", kLimits, KnobKind::kDuration, "10m", kMinute, 24 * kHour, "",
     "How long a repeated request_id or dedup_id gets the first answer. Each id costs 200 bytes for so long, and some "
     "36 "
     "in ZooKeeper once its messages are gone.",
     &Config::request_id_window},
    {"request-ids-max", kLimits, KnobKind::kCount, "100000", 1000, 10'000'000, "",
     "Ids remembered per log. Past it a request with an id gets RESOURCE_EXHAUSTED until the window moves on.",
     &Config::request_ids_max},
    {"consumers-max", kLimits, KnobKind::kCount, "10000", 1, 100'000, "",
     "Consumers of one source at a time: Consume streams and waiting Dequeue calls.", &Config::consumers_max},
    {"streams-max", kLimits, KnobKind::kCount, "10000", 1, 100'000, "",
     "Streams open on this replica at a time. Each costs some 50 KiB.", &Config::streams_max},
    {"calls-max", kLimits, KnobKind::kCount, "10000", 16, 1'000'000, "",
     "Calls in progress on this replica at a time, streams apart. Past it: TOO_MANY_CALLS.", &Config::calls_max},

    {"log-level", kSeeing, KnobKind::kChoice, "info", 0, 0, "debug|info|warning|error",
     "The least level of an event that is logged.", &Config::log_level},
    {"log-format", kSeeing, KnobKind::kChoice, "text", 0, 0, "text|json",
     "One line per event on stderr, for people or for programs.", &Config::log_format},
    {"metrics-queues-max", kSeeing, KnobKind::kCount, "1000", 0, 100'000, "",
     "Queues and subscriptions with metrics of their own; the rest are summed as _other. Each costs Prometheus some 60 "
     "series.",
     &Config::metrics_queues_max},
};

// --- reading values ---

struct Suffix {
  std::string_view name;
  std::int64_t factor;
};
constexpr Suffix kByteSuffixes[] = {{"GiB", kGiB}, {"MiB", kMiB}, {"KiB", kKiB}};
constexpr Suffix kDurationSuffixes[] = {{"ms", 1}, {"s", kSecond}, {"m", kMinute}, {"h", kHour}};

// Digits, an optional space, one of the suffixes. Without a suffix the factor is `bare`; 0 = not allowed.
std::optional<std::int64_t> ReadNumber(std::string_view text, std::span<const Suffix> suffixes, std::int64_t bare) {
  std::int64_t factor = bare;
  for (const Suffix& suffix : suffixes) {
    if (text.ends_with(suffix.name)) {
      factor = suffix.factor;
      text.remove_suffix(suffix.name.size());
      if (text.ends_with(' ')) text.remove_suffix(1);
      break;
    }
  }
  std::int64_t number;
  const bool is_digits = !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
  if (factor == 0 || !is_digits || !absl::SimpleAtoi(AbslView(text), &number)) return std::nullopt;
  if (number > std::numeric_limits<std::int64_t>::max() / factor) return std::nullopt;
  return number * factor;
}

std::string FormatWith(std::int64_t value, std::span<const Suffix> falling, std::string_view bare) {
  for (const Suffix& suffix : falling) {
    if (value != 0 && value % suffix.factor == 0) return Cat(value / suffix.factor, suffix.name);
  }
  return Cat(value, bare);
}

std::string FormatNumber(const Knob& knob, std::int64_t value) {
  if (knob.kind == KnobKind::kBytes) return FormatBytes(value);
  if (knob.kind == KnobKind::kDuration) return FormatDuration(value);
  return Cat(value);
}

absl::Status Bad(std::string_view text, std::string_view expected) {
  return absl::InvalidArgumentError(Cat("'", Printable(text, 200), "' is not ", expected));
}

std::vector<std::string> Split(std::string_view text, char separator) {
  return absl::StrSplit(AbslView(text), separator);
}

bool IsHostName(std::string_view host) {
  return !host.empty() && host.size() <= 253 && std::all_of(host.begin(), host.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '-' || c == '_';
  });
}

// host:port, or [v6]:port.
bool IsAddress(std::string_view text, int port_min) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return false;
  std::string_view host = text.substr(0, colon);
  if (host.starts_with('[')) {
    if (!host.ends_with(']') || host.size() < 4) return false;
    host = host.substr(1, host.size() - 2);
    const bool is_v6 = host.find(':') != std::string_view::npos && std::all_of(host.begin(), host.end(), [](char c) {
                         return absl::ascii_isxdigit(c) || c == ':' || c == '.';
                       });
    if (!is_v6) return false;
  } else if (!IsHostName(host)) {
    return false;
  }
  const auto port = ReadNumber(text.substr(colon + 1), {}, 1);
  return port && *port >= port_min && *port <= 65535;
}

bool IsZnodePath(std::string_view text) {
  if (text.size() < 2 || text.size() > 256 || !text.starts_with('/')) return false;
  for (const std::string& part : Split(text.substr(1), '/')) {
    const bool is_name = !part.empty() && part != "." && part != ".." &&
                         std::all_of(part.begin(), part.end(), [](char c) { return c > ' ' && c < 0x7F; });
    if (!is_name) return false;
  }
  return true;
}

bool IsEnsemble(std::string_view text) {
  const std::size_t slash = text.find('/');
  if (slash != std::string_view::npos && !IsZnodePath(text.substr(slash))) return false;
  for (const std::string& host : Split(text.substr(0, slash), ',')) {
    if (!IsAddress(host, 1)) return false;
  }
  return true;
}

absl::Status CheckText(const Knob& knob, std::string_view text) {
  switch (knob.kind) {
    case KnobKind::kAddressOrOff:
      if (text == "off") return absl::OkStatus();
      return IsAddress(text, 0) ? absl::OkStatus() : Bad(text, "host:port (such as 127.0.0.1:7412), nor off");
    case KnobKind::kAddressOrEmpty:
      if (text.empty() || IsAddress(text, 1)) return absl::OkStatus();
      return Bad(text, "host:port (such as 10.0.0.5:7411)");
    case KnobKind::kAddress:
      return IsAddress(text, 0) ? absl::OkStatus() : Bad(text, "host:port (such as 127.0.0.1:7411)");
    case KnobKind::kEnsemble:
      if (text.empty() || IsEnsemble(text)) return absl::OkStatus();
      return Bad(text, "host:port,host:port[/chroot] (such as zk1:2181,zk2:2181/apps)");
    case KnobKind::kZnode:
      return IsZnodePath(text) ? absl::OkStatus() : Bad(text, "a path of znodes (such as /postkeeper)");
    case KnobKind::kDirectory: {
      const bool is_plain = std::none_of(text.begin(), text.end(), absl::ascii_iscntrl);
      return !text.empty() && is_plain ? absl::OkStatus() : Bad(text, "the name of a directory");
    }
    default:
      return absl::InternalError("not a text");
  }
}

absl::StatusOr<std::int64_t> ReadChoice(const Knob& knob, std::string_view text) {
  const std::vector<std::string> choices = Split(knob.choices, '|');
  const auto found = std::find(choices.begin(), choices.end(), text);
  if (found == choices.end()) return Bad(text, Cat("one of ", knob.choices));
  return found - choices.begin();
}

absl::StatusOr<std::int64_t> ReadWithinBounds(const Knob& knob, std::string_view text) {
  std::optional<std::int64_t> value;
  std::string_view expected = "a whole number";
  if (knob.kind == KnobKind::kBytes) {
    value = ReadNumber(text, kByteSuffixes, 1);
    expected = "a size (such as 65536, 64KiB, 2MiB, 1GiB)";
  } else if (knob.kind == KnobKind::kDuration) {
    value = ReadNumber(text, kDurationSuffixes, 0);
    expected = "a time with its unit (such as 500ms, 10s, 5m, 1h)";
  } else {
    value = ReadNumber(text, {}, 1);
  }
  if (!value) return Bad(text, expected);
  if (*value < knob.min || *value > knob.max) {
    return absl::InvalidArgumentError(Cat(FormatNumber(knob, *value), " is out of bounds: it is ", BoundsText(knob)));
  }
  return *value;
}

struct Storer {
  Config* config;
  std::int64_t number;
  std::string_view text;

  void operator()(std::string Config::*member) const { config->*member = std::string(text == "off" ? "" : text); }
  void operator()(std::int64_t Config::*member) const { config->*member = number; }
  void operator()(int Config::*member) const { config->*member = static_cast<int>(number); }
  void operator()(Duration Config::*member) const { config->*member = std::chrono::milliseconds(number); }
  void operator()(LogLevel Config::*member) const { config->*member = static_cast<LogLevel>(number); }
  void operator()(LogFormat Config::*member) const { config->*member = static_cast<LogFormat>(number); }
  void operator()(bool Config::*member) const { config->*member = number == 1; }  // off|on|auto
};

bool IsText(KnobKind kind) {
  return kind != KnobKind::kChoice && kind != KnobKind::kCount && kind != KnobKind::kBytes &&
         kind != KnobKind::kDuration;
}

// Breaks `text` into lines of at most `width`, each behind `indent` spaces.
std::string Wrapped(std::string_view text, std::size_t indent, std::size_t width) {
  std::string out, line;
  for (const std::string& word : Split(text, ' ')) {
    if (!line.empty() && indent + line.size() + 1 + word.size() > width) {
      out += Cat(std::string(indent, ' '), line, "\n");
      line.clear();
    }
    line += Cat(line.empty() ? "" : " ", word);
  }
  out += Cat(std::string(indent, ' '), line, "\n");
  return out;
}

std::string_view ShownDefault(const Knob& knob) { return knob.default_value.empty() ? "empty" : knob.default_value; }

}  // namespace

std::span<const Knob> Knobs() { return kKnobs; }

const Knob* FindKnob(std::string_view name) {
  const auto found = std::find_if(std::begin(kKnobs), std::end(kKnobs), [&](const Knob& k) { return k.name == name; });
  return found == std::end(kKnobs) ? nullptr : found;
}

absl::StatusOr<std::string> StoreKnob(const Knob& knob, std::string_view text, Config* config) {
  if (text == "auto" && knob.default_value == "auto") {
    std::visit(Storer{config, 0, ""}, knob.member);
    return std::string(text);
  }
  if (IsText(knob.kind)) {
    if (absl::Status status = CheckText(knob, text); !status.ok()) return status;
    std::visit(Storer{config, 0, text}, knob.member);
    return std::string(text);
  }
  const absl::StatusOr<std::int64_t> value =
      knob.kind == KnobKind::kChoice ? ReadChoice(knob, text) : ReadWithinBounds(knob, text);
  if (!value.ok()) return value.status();
  std::visit(Storer{config, *value, text}, knob.member);
  return knob.kind == KnobKind::kChoice ? std::string(text) : FormatNumber(knob, *value);
}

std::string BoundsText(const Knob& knob) {
  if (knob.kind == KnobKind::kChoice) return std::string(knob.choices);
  if (IsText(knob.kind)) return "";
  return Cat(FormatNumber(knob, knob.min), " to ", FormatNumber(knob, knob.max));
}

std::string_view UnitText(const Knob& knob) {
  switch (knob.kind) {
    case KnobKind::kAddress:
    case KnobKind::kAddressOrEmpty:
      return "host:port";
    case KnobKind::kAddressOrOff:
      return "host:port or off";
    case KnobKind::kEnsemble:
      return "host:port,...[/chroot]";
    case KnobKind::kZnode:
      return "znode path";
    case KnobKind::kDirectory:
      return "directory";
    case KnobKind::kChoice:
      return "choice";
    case KnobKind::kCount:
      return "number";
    case KnobKind::kBytes:
      return "bytes (KiB, MiB, GiB)";
    case KnobKind::kDuration:
      return "time (ms, s, m, h)";
  }
  return "";
}

std::string FormatBytes(std::int64_t bytes) { return FormatWith(bytes, kByteSuffixes, ""); }

std::string FormatDuration(std::int64_t milliseconds) {
  static constexpr Suffix kFalling[] = {{"h", kHour}, {"m", kMinute}, {"s", kSecond}};
  return FormatWith(milliseconds, kFalling, "ms");
}

std::optional<Duration> ReadDuration(std::string_view text) {
  constexpr std::int64_t kMillisecondsMax = std::chrono::floor<std::chrono::milliseconds>(Duration::max()).count();
  const std::optional<std::int64_t> milliseconds = ReadNumber(text, kDurationSuffixes, 0);
  if (!milliseconds || *milliseconds > kMillisecondsMax) return std::nullopt;
  return std::chrono::milliseconds(*milliseconds);
}

std::string EnvironmentName(std::string_view knob_name) {
  std::string name = Cat("POSTKEEPER_", absl::AsciiStrToUpper(AbslView(knob_name)));
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

std::string NearestName(std::string_view name, std::span<const std::string> candidates) {
  std::string nearest;
  std::size_t least = std::max<std::size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    // The number of characters to insert, drop or replace; one row of the table at a time.
    std::vector<std::size_t> row(candidate.size() + 1);
    for (std::size_t j = 0; j < row.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= name.size(); ++i) {
      std::size_t diagonal = std::exchange(row[0], i);
      for (std::size_t j = 1; j < row.size(); ++j) {
        const std::size_t replaced = diagonal + (name[i - 1] == candidate[j - 1] ? 0 : 1);
        diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, replaced}));
      }
    }
    if (row.back() < least) {
      least = row.back();
      nearest = candidate;
    }
  }
  return nearest;
}

std::string HelpText() {
  std::string out =
      "postkeeperd: durable queues and publish/subscribe over gRPC, kept in ZooKeeper.\n\n"
      "  postkeeperd                                    with a ZooKeeper of its own, on this machine\n"
      "  postkeeperd --zookeeper zk1:2181,zk2:2181/pk   on an existing ensemble\n\n"
      "Flags win over the environment (POSTKEEPER_LISTEN for --listen), that over the file (listen = \"...\"),\n"
      "that over defaults.\n\n"
      "  --config FILE      the file; /etc/postkeeper/postkeeper.toml is read if it is there and none is named\n"
      "  --print-config     print every value and where it came from, as such a file, and exit\n"
      "  --version, -V      print the versions of the program, its API and its stored format, and exit\n"
      "  --help, -h         print this and exit; --help-markdown prints it as a page\n";
  std::string_view group;
  for (const Knob& knob : Knobs()) {
    if (knob.group != group) out += Cat("\n", knob.group, ":\n");
    group = knob.group;
    const std::string bounds = BoundsText(knob);
    out += Cat("  --", knob.name, "  ", UnitText(knob), "; default ", ShownDefault(knob), bounds.empty() ? "" : "; ",
               bounds, "\n", Wrapped(knob.what, 6, 110));
  }
  return out;
}

std::string HelpMarkdown() {
  std::string out =
      "# Configuration\n\n"
      "Made by `postkeeperd --help-markdown`. Flags win over the environment, that over the file, that over "
      "defaults.\n";
  std::string_view group;
  for (const Knob& knob : Knobs()) {
    if (knob.group != group) {
      out += Cat("\n## ", knob.group,
                 "\n\n| flag, variable | unit | default | bounds | what it does, and why |\n| --- | --- | --- | "
                 "--- | --- |\n");
    }
    group = knob.group;
    std::string bounds = BoundsText(knob);
    if (knob.kind == KnobKind::kChoice) {
      bounds = absl::StrJoin(Split(knob.choices, '|'), ", ");  // a bar would end the column
    }
    out += Cat("| `--", knob.name, "`<br>`", EnvironmentName(knob.name), "` | ", UnitText(knob), " | ",
               ShownDefault(knob), " | ", bounds, " | ", knob.what, " |\n");
  }
  return out;
}

}  // namespace postkeeper
