/* gemtp: Gemma 4 with its multi-token-prediction drafter, for C and everything that can call C.
 *
 * Two objects. A gemtp_engine is an opened model: weights, tokenizer, threads; open it once. A
 * gemtp_session is one generation on it: start it with a prompt, step it until it is done, free it.
 *
 *   gemtp_engine* engine;
 *   char error[256];
 *   gemtp_engine_options options = gemtp_engine_options_default();
 *   options.drafter_path = "drafter.gguf";
 *   if (gemtp_engine_open("target.gguf", &options, &engine, error, sizeof error) != GEMTP_OK)
 *     return fail(error);
 *
 *   gemtp_session* session;
 *   gemtp_generate_options generate = gemtp_generate_options_default();
 *   generate.max_tokens = 64;
 *   gemtp_session_start_text(engine, "def fibonacci(n):", 17, &generate, &session, error,
 *                            sizeof error);
 *   while (!gemtp_session_done(session)) {
 *     const char* text;
 *     size_t length;
 *     if (gemtp_session_step(session, &text, &length, error, sizeof error) != GEMTP_OK) break;
 *     fwrite(text, 1, length, stdout);
 *   }
 *   gemtp_session_free(session);
 *   gemtp_engine_close(engine);
 *
 * The text is a function of weights, prompt, options and seed, and of nothing else: the drafter,
 * its depth, the number of threads and the instruction set change the speed only.
 *
 * Rules
 *  - Functions that can fail return a gemtp_status and, when it is not GEMTP_OK, write one sentence
 *    (what is wrong, where, what to do) to error[0 .. error_size), cut to fit and 0-terminated.
 * error may be NULL. Outputs are untouched on failure. Nothing here prints, aborts or exits.
 *  - Text is UTF-8 with an explicit length; it need not end in 0.
 *  - An engine may be used from several threads; one step computes at a time. A session belongs to
 *    one thread at a time. Free sessions before their engine is closed, in any order after that
 *    is safe too: a session keeps what it needs alive.
 *  - Structs of options begin with their size, which the *_default() functions fill in, so that
 *    fields can be added without breaking a caller.
 */
#ifndef GEMTP_H_
#define GEMTP_H_

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define GEMTP_API __declspec(dllexport)
#elif defined(__GNUC__)
#define GEMTP_API __attribute__((visibility("default")))
#else
#define GEMTP_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gemtp_engine gemtp_engine;
typedef struct gemtp_session gemtp_session;

typedef enum gemtp_status {
  GEMTP_OK = 0,
  GEMTP_ERROR_FILE = 1,     /* a file that cannot be read or is damaged */
  GEMTP_ERROR_MODEL = 2,    /* files that do not fit together or that this build cannot run */
  GEMTP_ERROR_ARGUMENT = 3, /* a parameter outside its domain */
  GEMTP_ERROR_CONTEXT = 4,  /* more tokens than the context holds */
  GEMTP_ERROR_MEMORY = 5,   /* not enough memory */
  GEMTP_ERROR_INTERNAL = 6, /* a bug of gemtp's */
  GEMTP_ERROR_CANCELLED = 7 /* stopped by gemtp_session_cancel() */
} gemtp_status;

/* "0.1.0" */
GEMTP_API const char* gemtp_version(void);

/* ---- engine ------------------------------------------------------------------------------------
 */

typedef struct gemtp_engine_options {
  size_t size;
  const char* drafter_path; /* NULL: decode without a drafter */
  int32_t threads;          /* 0: as many as this machine profits from */
  int64_t context;          /* tokens a sequence can hold; at most the model's own length */
  int64_t prefill_chunk;    /* rows of one prefill pass: memory against speed */
  int32_t kv_f32;           /* 0: K/V in f16 (half the memory), 1: in f32 */
  int32_t no_mmap;          /* 1: read the files into memory, if they may change while in use */
  const char* isa;          /* NULL: environment variable GEMTP_ISA, else the best that runs */
} gemtp_engine_options;

GEMTP_API gemtp_engine_options gemtp_engine_options_default(void);

/* options may be NULL for the defaults. */
GEMTP_API gemtp_status gemtp_engine_open(const char* target_path,
                                         const gemtp_engine_options* options, gemtp_engine** engine,
                                         char* error, size_t error_size);
GEMTP_API void gemtp_engine_close(gemtp_engine* engine); /* NULL is fine */

GEMTP_API int64_t gemtp_engine_vocab_size(const gemtp_engine* engine);
GEMTP_API int64_t gemtp_engine_context(const gemtp_engine* engine);
/* e.g. "cpu/avx2"; valid as long as the engine. */
GEMTP_API const char* gemtp_engine_backend(const gemtp_engine* engine);

enum {
  GEMTP_ADD_BOS = 1,      /* put the beginning-of-sequence token in front */
  GEMTP_PARSE_SPECIAL = 2 /* text that spells a control token becomes it; never for user text */
};

/* Ids of text[0 .. length). Writes the first `capacity` of them and always their number to *count;
 * call with capacity 0 to learn the number. */
GEMTP_API gemtp_status gemtp_tokenize(const gemtp_engine* engine, const char* text, size_t length,
                                      int flags, int32_t* ids, size_t capacity, size_t* count,
                                      char* error, size_t error_size);

/* UTF-8 of ids[0 .. count). Writes the first `capacity` bytes and always their number to *length.
 */
GEMTP_API gemtp_status gemtp_detokenize(const gemtp_engine* engine, const int32_t* ids,
                                        size_t count, char* text, size_t capacity, size_t* length,
                                        char* error, size_t error_size);

/* ---- session -----------------------------------------------------------------------------------
 */

enum { GEMTP_DRAFT_AUTO = -1 };

typedef struct gemtp_generate_options {
  size_t size;
  int64_t max_tokens;
  float temperature;        /* 0: greedy */
  int32_t top_k;            /* 0: off */
  float top_p;              /* 1: off */
  float min_p;              /* 0: off */
  float repetition_penalty; /* 1: off */
  float presence_penalty;
  float frequency_penalty;
  int32_t penalty_last_n; /* tokens the penalties look back on; -1: all */
  uint64_t seed;
  const char* const* stop; /* 0-terminated strings that end the text and are not part of it */
  size_t stop_count;
  int32_t draft;      /* tokens to draft a round: GEMTP_DRAFT_AUTO, 0 (off) to 15 */
  int32_t ignore_eos; /* 1: go on after an end token */
} gemtp_generate_options;

GEMTP_API gemtp_generate_options gemtp_generate_options_default(void);

typedef struct gemtp_stats {
  int64_t rounds;   /* verify passes */
  int64_t drafted;  /* drafts verified */
  int64_t accepted; /* drafts that became tokens */
  int64_t prompt_tokens;
  int64_t cached_tokens; /* of the prompt, still in the K/V cache from an earlier session */
  int64_t tokens;        /* generated */
  double prompt_seconds; /* until the first token */
  double decode_seconds; /* after it */
} gemtp_stats;

/* Begins a generation behind ids[0 .. count), or behind a text (BOS is put in front, control tokens
 * in it are not parsed). Everything is validated here; nothing is computed yet. options may be
 * NULL. */
GEMTP_API gemtp_status gemtp_session_start(gemtp_engine* engine, const int32_t* ids, size_t count,
                                           const gemtp_generate_options* options,
                                           gemtp_session** session, char* error, size_t error_size);
GEMTP_API gemtp_status gemtp_session_start_text(gemtp_engine* engine, const char* text,
                                                size_t length,
                                                const gemtp_generate_options* options,
                                                gemtp_session** session, char* error,
                                                size_t error_size);

/* One chunk of the prompt, or one draft-verify round. *text is the UTF-8 that became certain,
 * possibly empty, valid until the next call on this session. */
GEMTP_API gemtp_status gemtp_session_step(gemtp_session* session, const char** text, size_t* length,
                                          char* error, size_t error_size);
GEMTP_API int gemtp_session_done(const gemtp_session* session);
/* "stop", "length", "context", or "unfinished". */
GEMTP_API const char* gemtp_session_finish_reason(const gemtp_session* session);
/* All tokens generated so far; valid until the next step. */
GEMTP_API const int32_t* gemtp_session_tokens(const gemtp_session* session, size_t* count);
GEMTP_API gemtp_stats gemtp_session_stats(const gemtp_session* session);
GEMTP_API void gemtp_session_free(gemtp_session* session); /* also half-way; NULL is fine */

#ifdef __cplusplus
}
#endif

#endif /* GEMTP_H_ */
