// A model that is sound but for some edits, through the C ABI: opened, described and generated
// with, drafts and all. What it says may be anything; twice the same question gives the same
// answer.
#include <string>
#include <utility>
#include <vector>

#include "fuzz.h"
#include "gemtp.h"
#include "gguf_edits.h"

using namespace gemtp;
using namespace gemtp::fuzzing;

namespace {

constexpr const char* kModels[] = {
    "sound-target",      "sound-drafter",     "sound-experts",       "e2b-target-q4_0",
    "12b-target-q4_k_m", "12b-target-iq4_xs", "26b-a4b-target-q8_0", "26b-a4b-drafter-q8_0"};

// The other model of the pair; experts have the drafter of the target that is like them.
std::string partner_of(std::string name) {
  for (const auto& [part, other] : {std::pair<std::string, std::string>{"-target", "-drafter"},
                                    {"-drafter", "-target"},
                                    {"-experts", "-drafter"}}) {
    if (const size_t at = name.find(part); at != std::string::npos)
      return name.replace(at, part.size(), other);
  }
  return name;
}

// Checks what a call returned. Returns whether it succeeded.
bool succeeded(gemtp_status status, const char* error) {
  if (status == GEMTP_OK) return true;
  check_sentence(error);
  if (status == GEMTP_ERROR_INTERNAL) std::fprintf(stderr, "an internal error: %s\n", error);
  FUZZ_CHECK(status != GEMTP_ERROR_INTERNAL && status != GEMTP_ERROR_BUSY);
  return false;
}

struct Text {
  gemtp_status status = GEMTP_OK;
  std::vector<int32_t> tokens;
  std::string text;
  bool operator==(const Text&) const = default;
};

int keep(const gemtp_token* token, void* user) {
  check_text({token->text, token->length});
  auto& text = static_cast<Text*>(user)->text;
  text.append(token->text, token->length);
  return 0;
}

Text generated(gemtp_model* model, gemtp_generate_options options) {
  char error[400];
  Text out;
  gemtp_session* session = nullptr;
  FUZZ_CHECK(gemtp_session_open(model, &session, error, sizeof error) == GEMTP_OK);
  const std::vector<int32_t> prompt = {2, 5,  9,  7,  8,  9,  7,  8,  9,
                                       7, 10, 11, 12, 13, 14, 15, 16, 17};
  out.status = gemtp_session_append(session, prompt.data(), prompt.size(), error, sizeof error);
  if (succeeded(out.status, error)) {
    options.on_token = keep;
    options.user = &out;
    out.status = gemtp_session_generate(session, &options, error, sizeof error);
    succeeded(out.status, error);
    size_t count = 0;
    out.tokens.resize(64);
    FUZZ_CHECK(gemtp_session_tokens(session, out.tokens.data(), out.tokens.size(), &count, error,
                                    sizeof error) == GEMTP_OK);
    FUZZ_CHECK(count <= out.tokens.size());
    out.tokens.resize(count);
  }
  gemtp_session_close(session);
  return out;
}

void use(gemtp_model* model, Data& data) {
  char error[400];
  gemtp_model_info info;
  info.size = sizeof info;
  FUZZ_CHECK(gemtp_model_describe(model, &info, error, sizeof error) == GEMTP_OK);
  FUZZ_CHECK(info.context > 0 && info.context <= 64 && info.vocab_size > 0);
  gemtp_generate_options options;
  gemtp_generate_options_init(&options, sizeof options);
  options.max_tokens = 6;
  options.ignore_eos = 1;
  options.temperature = data.ConsumeBool() ? 0.8f : 0.0f;
  options.logprobs = data.ConsumeBool() ? 3 : -1;
  options.draft = data.ConsumeIntegralInRange(1, 4);
  const Text drafted = generated(model, options);
  options.draft = 0;
  const Text plain = generated(model, options);
  // A drafter that computes no numbers is reported where plain decoding has nothing to report.
  if (drafted.status == GEMTP_OK || plain.status != GEMTP_OK) FUZZ_CHECK(drafted == plain);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  static const std::vector<GgufParts> sound = [] {
    std::vector<GgufParts> out;
    for (const char* name : kModels) out.push_back(GgufParts::of(model_path(name)));
    return out;
  }();
  Data data(bytes, size);
  const auto which = data.ConsumeIntegralInRange<size_t>(0, sound.size() - 1);
  const std::string name = kModels[which];
  GgufParts parts = sound[which];
  edit(&parts, data);
  const MemoryFile edited(parts.bytes());
  const bool drafter = name.find("-drafter") != std::string::npos;
  const std::string partner = model_path(partner_of(name));

  gemtp_model_options options;
  gemtp_model_options_init(&options, sizeof options);
  options.threads = 1;
  options.context = 64;
  options.prefill_chunk = 16;
  options.kv_budget = 8 << 20;
  options.no_mmap = data.ConsumeBool();
  options.kv_f32 = data.ConsumeBool();
  if (drafter || data.ConsumeBool())
    options.drafter_path = drafter ? edited.path().c_str() : partner.c_str();
  const char* target = drafter ? partner.c_str() : edited.path().c_str();
  char error[400];
  gemtp_memory memory;
  memory.size = sizeof memory;
  succeeded(gemtp_memory_estimate(target, &options, &memory, error, sizeof error), error);
  gemtp_model* model = nullptr;
  if (!succeeded(gemtp_model_open(target, &options, &model, error, sizeof error), error)) return 0;
  use(model, data);
  gemtp_model_close(model);
  return 0;
}
