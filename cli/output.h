// What the program prints on stdout, for people or for programs.
#ifndef POSTKEEPER_CLI_OUTPUT_H_
#define POSTKEEPER_CLI_OUTPUT_H_

#include <cstdint>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace postkeeper::cli {

// One JSON object, built member by member in the order given. Always valid JSON on one line, whatever the bytes.
class JsonObject {
 public:
  JsonObject& Add(std::string_view key, std::string_view text);
  JsonObject& Add(std::string_view key, const char* text) { return Add(key, std::string_view(text)); }
  JsonObject& Add(std::string_view key, std::int64_t number);
  JsonObject& Add(std::string_view key, double number);
  JsonObject& AddBool(std::string_view key, bool value);
  JsonObject& Add(std::string_view key, const JsonObject& object);
  JsonObject& AddList(std::string_view key, const std::vector<std::string>& texts);
  // "body" as text if the bytes are UTF-8, else "body_base64": never both, never neither.
  JsonObject& AddBody(std::string_view body);

  std::string Text() const { return "{" + members_ + "}"; }

 private:
  JsonObject& AddRaw(std::string_view key, std::string_view value);

  std::string members_;
};

enum class OutputFormat { kHuman, kJson };

// Prints whole lines. Not thread-safe. Holds a reference to the stream, which it does not own.
//
// A write that fails (a closed pipe, a full disk) makes Flush() false from then on; whoever acks what was printed asks
// it first.
class Output {
 public:
  // `is_terminal`: a person's terminal reads it; control characters in bodies are then shown instead of sent.
  Output(std::ostream& stream, OutputFormat format, bool is_terminal)
      : stream_(stream), format_(format), is_terminal_(is_terminal) {}

  bool is_json() const { return format_ == OutputFormat::kJson; }

  void Line(std::string_view text);
  void Json(const JsonObject& object);
  // The body's bytes, and a line feed unless they end with one.
  void Body(std::string_view body);
  // Columns aligned, two spaces apart; the first row is the heading.
  void Table(const std::vector<std::vector<std::string>>& rows);
  // "name:  value", aligned.
  void Fields(const std::vector<std::pair<std::string, std::string>>& fields);

  // True if all that was printed so far has been taken by the system.
  bool Flush();

 private:
  std::ostream& stream_;
  const OutputFormat format_;
  const bool is_terminal_;
};

}  // namespace postkeeper::cli

#endif  // POSTKEEPER_CLI_OUTPUT_H_
