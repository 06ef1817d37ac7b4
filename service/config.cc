#include "service/config.h"

#include <sys/sysinfo.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "service/advertised_address.h"
#include "service/knobs.h"
#include "zkstore/layout.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

constexpr std::int64_t kMiB = 1 << 20;
constexpr std::string_view kPrefix = "POSTKEEPER_";
constexpr std::size_t kConfigFileBytesMax = 1 << 20;

// Variables of the same family that are not for the server: the clients', and what `postkeeper consume --exec` gives to
// the commands it runs.
constexpr std::string_view kOtherVariables[] = {"POSTKEEPER_ADDRESS", "POSTKEEPER_MESSAGE_ID", "POSTKEEPER_ATTEMPT",
                                                "POSTKEEPER_SOURCE", "POSTKEEPER_CONTENT_TYPE"};
constexpr std::string_view kAttributePrefix = "POSTKEEPER_ATTRIBUTE_";

// One line that says what is wrong; nothing if all is well.
using Problem = std::optional<std::string>;

struct Given {
  std::string value;
  Origin origin = Origin::kDefault;
  std::string place;  // for errors: "--listen", "POSTKEEPER_LISTEN", "listen in FILE"
};
using GivenByName = std::map<std::string, Given, std::less<>>;

// The flags that are not knobs.
struct Requests {
  std::optional<std::string> config_file;
  bool wants_help = false;
  bool wants_help_markdown = false;
  bool wants_version = false;
  bool wants_print_config = false;
};

bool Contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

std::vector<std::string> KnobNames(std::string_view prefix) {
  std::vector<std::string> names;
  for (const Knob& knob : Knobs()) names.push_back(Cat(prefix, knob.name));
  return names;
}

// What somebody else wrote, for an error of one line.
std::string Shown(std::string_view text) { return Printable(text, 200); }

std::string DidYouMean(std::string_view name, const std::vector<std::string>& known) {
  const std::string nearest = NearestName(name, known);
  return nearest.empty() ? "" : Cat(" Did you mean ", nearest, "?");
}

Problem UnknownArgument(std::string_view argument) {
  if (!argument.starts_with("-")) {
    return Cat("unexpected argument '", Shown(argument), "': postkeeperd takes flags only. See postkeeperd --help");
  }
  const std::string_view flag = argument.substr(0, argument.find('='));
  std::vector<std::string> known = KnobNames("--");
  known.insert(known.end(), {"--config", "--print-config", "--help", "--help-markdown", "--version"});
  return Cat(Shown(flag), " is not a known flag.", DidYouMean(flag, known), " See postkeeperd --help");
}

// --- flags ---

Problem ReadFlags(std::span<const std::string> arguments, GivenByName* given, Requests* requests) {
  CLI::App app;
  app.set_help_flag();
  app.allow_extras();
  std::vector<std::pair<std::string, CLI::Option*>> options;
  const auto add = [&](const std::string& name) {
    CLI::Option* option = app.add_option("--" + name)->expected(1)->type_size(1)->allow_extra_args(false);
    option->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    options.emplace_back(name, option);
  };
  for (const Knob& knob : Knobs()) add(std::string(knob.name));
  add("config");
  const CLI::Option* help = app.add_flag("--help,-h");
  const CLI::Option* help_markdown = app.add_flag("--help-markdown");
  const CLI::Option* version = app.add_flag("--version,-V");
  const CLI::Option* print_config = app.add_flag("--print-config");

  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
  try {
    app.parse(reversed);
  } catch (const CLI::ParseError& error) {
    for (const auto& [name, option] : options) {
      if (option->count() == 0 && !arguments.empty() && arguments.back() == "--" + name) {
        return Cat("--", name, " needs a value. See postkeeperd --help");
      }
    }
    return Cat(error.what(), ". See postkeeperd --help");
  }
  if (const std::vector<std::string> extras = app.remaining(); !extras.empty()) return UnknownArgument(extras.front());
  for (const auto& [name, option] : options) {
    if (option->count() == 0) continue;
    if (option->count() > 1) return Cat("--", name, " is given ", option->count(), " times");
    if (name == "config") {
      requests->config_file = option->results().front();
    } else {
      given->insert_or_assign(name, Given{option->results().front(), Origin::kFlag, "--" + name});
    }
  }
  requests->wants_help = help->count() > 0;
  requests->wants_help_markdown = help_markdown->count() > 0;
  requests->wants_version = version->count() > 0;
  requests->wants_print_config = print_config->count() > 0;
  return std::nullopt;
}

// --- environment ---

// Kubernetes gives every pod POSTKEEPER_PORT=tcp://..., POSTKEEPER_SERVICE_HOST and the like when a Service of its
// namespace is called postkeeper (or postkeeper-metrics, ...). They are nobody's mistake.
bool IsFromKubernetes(std::string_view name, std::string_view value) {
  if (name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") || Contains(name, "_SERVICE_PORT_")) {
    return true;
  }
  if (name.ends_with("_PORT")) {
    return value.starts_with("tcp://") || value.starts_with("udp://") || value.starts_with("sctp://");
  }
  for (const std::string_view protocol : {"_TCP", "_UDP", "_SCTP"}) {
    for (const std::string_view rest : {"", "_ADDR", "_PORT", "_PROTO"}) {
      if (Contains(name, "_PORT_") && name.ends_with(Cat(protocol, rest))) return true;
    }
  }
  return false;
}

bool IsForOthers(std::string_view name, std::string_view value) {
  return std::find(std::begin(kOtherVariables), std::end(kOtherVariables), name) != std::end(kOtherVariables) ||
         name.starts_with(kAttributePrefix) || IsFromKubernetes(name, value);
}

std::string Variable(std::span<const std::string> environment, std::string_view name) {
  for (const std::string& entry : environment) {
    if (entry.starts_with(Cat(name, "="))) return entry.substr(name.size() + 1);
  }
  return "";
}

Problem ReadEnvironment(std::span<const std::string> environment, GivenByName* given, Requests* requests) {
  std::map<std::string, std::string, std::less<>> knob_of = {{"POSTKEEPER_CONFIG", "config"}};
  std::vector<std::string> known = {"POSTKEEPER_CONFIG"};
  for (const Knob& knob : Knobs()) {
    known.push_back(EnvironmentName(knob.name));
    knob_of.emplace(known.back(), knob.name);
  }
  for (const std::string& entry : environment) {
    if (!entry.starts_with(kPrefix)) continue;
    const std::size_t equals = std::min(entry.find('='), entry.size());
    const std::string name = entry.substr(0, equals);
    const std::string value = equals < entry.size() ? entry.substr(equals + 1) : "";
    const auto knob = knob_of.find(name);
    if (knob == knob_of.end()) {
      if (IsForOthers(name, value)) continue;
      return Cat("the environment variable ", Shown(name), " is not known.", DidYouMean(name, known),
                 " See postkeeperd --help");
    }
    if (knob->second == "config") {
      if (!requests->config_file) requests->config_file = value;
    } else {
      given->emplace(knob->second, Given{value, Origin::kEnvironment, name});
    }
  }
  return std::nullopt;
}

// --- file ---

Problem ReadFile(const std::string& file, GivenByName* given) {
  std::error_code error;
  const auto size = std::filesystem::file_size(file, error);
  if (error) return Cat("cannot read the configuration file ", file, ": ", error.message());
  if (size > kConfigFileBytesMax) return Cat("the configuration file ", file, " is larger than 1MiB");
  std::vector<CLI::ConfigItem> items;
  try {
    items = CLI::ConfigTOML().from_file(file);
  } catch (const CLI::Error&) {
    return Cat("cannot read the configuration file ", file);
  }
  GivenByName in_file;
  for (const CLI::ConfigItem& item : items) {
    if (item.name == "++" || item.name == "--") continue;  // a section begins, ends
    const std::string name = item.parents.empty() ? item.name : item.fullname();
    if (FindKnob(name) == nullptr) {
      return Cat("'", Shown(name), "' in ", file, " is not a known key.", DidYouMean(name, KnobNames("")),
                 " See postkeeperd --help");
    }
    const std::string place = Cat("'", name, "' in ", file);
    // The reader takes # for the beginning of a comment, also between quotes.
    const std::string value = absl::StrJoin(item.inputs, ",");
    if (Contains(value, "\"")) return Cat(place, ": a value must not hold # or quotes");
    if (!in_file.emplace(name, Given{value, Origin::kFile, place}).second) return place + " is given twice";
  }
  given->merge(in_file);
  return std::nullopt;
}

// --- what follows from other things ---

class Builder {
 public:
  Builder(const GivenByName& given, const Machine& machine) : given_(given), machine_(machine) {}

  Problem Build(std::span<const std::string> environment, Config* config) {
    for (const Knob& knob : Knobs()) {
      const auto found = given_.find(knob.name);
      const Given value = found != given_.end() ? found->second : Given{std::string(knob.default_value), {}, ""};
      const absl::StatusOr<std::string> stored = StoreKnob(knob, value.value, config);
      if (!stored.ok()) return Cat(value.place, ": ", stored.status().message());
      config->settings.push_back({std::string(knob.name), *stored, value.origin});
    }
    if (Problem problem = ChooseDataDirectory(environment, config)) return problem;
    ChooseThreadsAndAutoCreate(config);
    if (Problem problem = CheckBatches(*config)) return problem;
    if (Problem problem = CheckAddresses(*config)) return problem;
    return ChooseHeap(config);
  }

 private:
  // True if somebody chose a value. "auto" leaves it to us.
  bool IsChosen(std::string_view name) const {
    const auto found = given_.find(name);
    return found != given_.end() && found->second.value != "auto";
  }

  static void Compute(Config* config, std::string_view name, std::string value) {
    for (Setting& setting : config->settings) {
      if (setting.name == name) {
        setting.value = std::move(value);
        setting.origin = Origin::kComputed;
      }
    }
  }

  Problem ChooseDataDirectory(std::span<const std::string> environment, Config* config) const {
    namespace fs = std::filesystem;
    if (IsChosen("data-dir")) {
      config->data_dir = (fs::path(machine_.working_directory) / config->data_dir).lexically_normal().string();
      return std::nullopt;
    }
    const std::string xdg = Variable(environment, "XDG_DATA_HOME");
    const std::string home = Variable(environment, "HOME");
    if (machine_.is_root) {
      config->data_dir = "/var/lib/postkeeper";
    } else if (xdg.starts_with("/")) {  // the XDG specification ignores relative ones
      config->data_dir = xdg + "/postkeeper";
    } else if (home.starts_with("/")) {
      config->data_dir = home + "/.local/share/postkeeper";
    } else {
      return "there is no home directory (HOME) for the data. Name a directory: --data-dir DIR";
    }
    Compute(config, "data-dir", config->data_dir);
    return std::nullopt;
  }

  void ChooseThreadsAndAutoCreate(Config* config) const {
    if (!IsChosen("threads")) {
      config->threads = std::clamp(machine_.cores, 1, 4);
      Compute(config, "threads", Cat(config->threads));
    }
    if (!IsChosen("auto-create")) {
      config->auto_create_is_on = config->zookeeper_is_embedded();
      Compute(config, "auto-create", config->auto_create_is_on ? "on" : "off");
    }
  }

  static Problem CheckBatches(const Config& config) {
    if (config.message_bytes_max <= config.batch_bytes_max) return std::nullopt;
    return Cat("--message-bytes-max ", FormatBytes(config.message_bytes_max), " is more than --batch-bytes-max ",
               FormatBytes(config.batch_bytes_max),
               ": a message must fit a batch. Lower the first or raise "
               "the second");
  }

  static Problem CheckAddresses(const Config& config) {
    if (!config.advertise.empty() && IsEveryAddress(config.advertise)) {
      const std::string port = config.advertise.substr(config.advertise.rfind(':'));
      return Cat(
          "--advertise ", config.advertise,
          " means every address, and nobody can connect to that. Name one by which the other replicas reach this "
          "host (such as --advertise 10.0.0.5",
          port, "), or leave it out");
    }
    const bool is_same = config.listen == config.metrics_listen && !config.listen.ends_with(":0");
    if (!is_same) return std::nullopt;
    return Cat("--listen and --metrics-listen are both ", config.listen,
               ". Choose another for the metrics, or --metrics-listen off");
  }

  // The embedded ZooKeeper must be able to hold what we accept: one that runs out of memory ends, and finds the same
  // data again when it starts.
  Problem ChooseHeap(Config* config) const {
    if (!config->zookeeper_is_embedded()) {
      const std::string_view meaningless = config->zookeeper_heap_bytes != 0      ? "zookeeper-heap"
                                           : config->embedded_zookeeper_port != 0 ? "embedded-zookeeper-port"
                                                                                  : "";
      if (!meaningless.empty()) {
        return Cat("--", meaningless,
                   " is for the embedded ZooKeeper and means nothing with --zookeeper. Leave one of them out");
      }
      return std::nullopt;
    }
    const std::int64_t least = HeapBytesFor(FindKnob("stored-bytes-max")->min, config->batch_bytes_max);
    const bool heap_is_chosen = IsChosen("zookeeper-heap");
    if (!heap_is_chosen) {
      const std::int64_t wanted = HeapBytesFor(config->stored_bytes_max, config->batch_bytes_max);
      const std::int64_t half = machine_.memory_bytes / 2 / kMiB * kMiB;
      const Knob& knob = *FindKnob("zookeeper-heap");
      config->zookeeper_heap_bytes = std::clamp(std::max(std::min(wanted, half), least), knob.min, knob.max);
      Compute(config, "zookeeper-heap", FormatBytes(config->zookeeper_heap_bytes));
    } else if (config->zookeeper_heap_bytes < least) {
      return Cat("--zookeeper-heap ", FormatBytes(config->zookeeper_heap_bytes), " is too small for batches of ",
                 FormatBytes(config->batch_bytes_max), ": it must be at least ", FormatBytes(least),
                 ". Raise it or lower --batch-bytes-max");
    }
    const std::int64_t holds = StoredBytesFor(config->zookeeper_heap_bytes, config->batch_bytes_max);
    if (config->stored_bytes_max <= holds) return std::nullopt;
    if (IsChosen("stored-bytes-max")) {
      return Cat("--stored-bytes-max ", FormatBytes(config->stored_bytes_max), " needs --zookeeper-heap ",
                 FormatBytes(HeapBytesFor(config->stored_bytes_max, config->batch_bytes_max)), " or more; it is ",
                 FormatBytes(config->zookeeper_heap_bytes), heap_is_chosen ? "" : ", half of this machine's memory",
                 ". Lower the first or raise the "
                 "second");
    }
    config->stored_bytes_max = holds;
    Compute(config, "stored-bytes-max", FormatBytes(holds));
    return std::nullopt;
  }

  const GivenByName& given_;
  const Machine& machine_;
};

std::string_view OriginText(Origin origin) {
  switch (origin) {
    case Origin::kDefault:
      return "default";
    case Origin::kComputed:
      return "computed";
    case Origin::kFile:
      return "file";
    case Origin::kEnvironment:
      return "environment";
    case Origin::kFlag:
      return "flag";
  }
  return "";
}

PrintAndExit Refuse(const std::string& problem) { return {Cat("postkeeperd: ", problem, "\n"), 2}; }

// The memory that this process may use: a container's limit where there is one.
std::int64_t MemoryBytes() {
  struct sysinfo info {};
  std::int64_t bytes = 0;
  if (sysinfo(&info) == 0) bytes = static_cast<std::int64_t>(info.totalram) * info.mem_unit;
  std::ifstream limit_file("/sys/fs/cgroup/memory.max");
  std::string text;
  std::int64_t limit;
  if (limit_file >> text && absl::SimpleAtoi(text, &limit)) bytes = std::min(bytes, limit);
  return bytes;
}

}  // namespace

std::int64_t HeapBytesFor(std::int64_t stored_bytes, std::int64_t batch_bytes) {
  const std::int64_t exact = (stored_bytes + 1000 * batch_bytes) / 2 * 3;
  return (exact + kMiB - 1) / kMiB * kMiB;
}

std::int64_t StoredBytesFor(std::int64_t heap_bytes, std::int64_t batch_bytes) {
  return std::max<std::int64_t>(0, (heap_bytes / 3 * 2 - 1000 * batch_bytes) / kMiB * kMiB);
}

Machine ThisMachine() {
  Machine machine;
  machine.is_root = geteuid() == 0;
  machine.cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  machine.memory_bytes = MemoryBytes();
  std::error_code error;
  machine.working_directory = std::filesystem::current_path(error).string();
  return machine;
}

// Three versions that count apart: a new product may speak the same API and read the same store.
std::string VersionText() {
  return Cat("postkeeperd ", POSTKEEPER_VERSION, "\nAPI: ", POSTKEEPER_API_VERSION,
             "\nstore format: ", Layout::kFormatVersion, "\n");
}

ConfigOutcome ParseConfig(std::span<const std::string> arguments, std::span<const std::string> environment,
                          const Machine& machine) {
  GivenByName given;
  Requests requests;
  if (const Problem problem = ReadFlags(arguments, &given, &requests)) return Refuse(*problem);
  if (requests.wants_help) return PrintAndExit{HelpText(), 0};
  if (requests.wants_help_markdown) return PrintAndExit{HelpMarkdown(), 0};
  if (requests.wants_version) return PrintAndExit{VersionText(), 0};
  if (const Problem problem = ReadEnvironment(environment, &given, &requests)) return Refuse(*problem);
  std::error_code error;
  if (!requests.config_file && std::filesystem::exists(machine.config_file, error)) {
    requests.config_file = machine.config_file;
  }
  if (requests.config_file) {
    if (const Problem problem = ReadFile(*requests.config_file, &given)) return Refuse(*problem);
  }
  Config config;
  if (const Problem problem = Builder(given, machine).Build(environment, &config)) return Refuse(*problem);
  if (requests.wants_print_config) return PrintAndExit{PrintedConfig(config), 0};
  return config;
}

ConfigOutcome ParseConfig(int argc, const char* const* argv, const char* const* environment) {
  const std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  std::vector<std::string> variables;
  for (; environment != nullptr && *environment != nullptr; ++environment) variables.emplace_back(*environment);
  return ParseConfig(arguments, variables, ThisMachine());
}

std::string PrintedConfig(const Config& config) {
  std::string out;
  for (const Setting& setting : config.settings) {
    const std::string line = Cat(setting.name, " = \"", setting.value, "\"");
    out += Cat(line, std::string(line.size() < 50 ? 50 - line.size() : 1, ' '), "# ", OriginText(setting.origin), "\n");
  }
  return out;
}

}  // namespace postkeeper
