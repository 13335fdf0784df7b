// Control steps of many simulations as a custom call of XLA, without Python.
//
// Built by mujoco_ffi.py against the headers of the installed mujoco and jaxlib. All
// simulations are behind one lock, so devices that step at the same time take turns.

#include <mujoco/mjbatch.h>
#include <mujoco/mujoco.h>
#include <sched.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;

// A field of all simulations: `size` numbers each, `stride` from one to the next.
struct Field {
  mjtNum* first = nullptr;
  int size = 0;
  int stride = 0;
};

struct Simulations {
  mjBatch* batch = nullptr;
  std::vector<mjtNum> start;  // the state of one that has just been made
  std::map<std::string, Field> fields;
};

// Model, number of simulations, number of threads, overridden fields.
using Key = std::tuple<int64_t, int, int, std::string>;

std::mutex turn;
std::map<int64_t, const mjModel*> models;
std::map<Key, Simulations> made;

const std::map<std::string, mjtState> kState = {
    {"qpos", mjSTATE_QPOS},
    {"qvel", mjSTATE_QVEL},
    {"qacc_warmstart", mjSTATE_WARMSTART},
    {"ctrl", mjSTATE_CTRL},
    {"mocap_pos", mjSTATE_MOCAP_POS},
};

std::vector<std::string> Words(std::string_view text) {
  std::istringstream stream{std::string(text)};
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

int NumCores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof(cores), &cores)) return 1;
  return CPU_COUNT(&cores);
}

// Returns a field of the simulations, from now on computed or their own; its size is
// zero if there is none of this name.
Field Find(Simulations& simulations, const std::string& name, bool of_model) {
  auto [entry, is_new] = simulations.fields.try_emplace(name);
  Field& field = entry->second;
  if (!is_new) return field;
  mjBatch* batch = simulations.batch;
  int width = sizeof(mjtNum);
  void* data;
  if (auto state = kState.find(name); state != kState.end()) {
    data = mjb_stateComponent(batch, state->second, &field.size);
    field.stride = mjb_nstate(batch);
  } else {
    data = of_model ? mjb_expand(batch, name.c_str(), &field.size, &width)
                    : mjb_output(batch, name.c_str(), &field.size, &width);
    field.stride = field.size;
  }
  if (!data || width != sizeof(mjtNum)) return field = Field{};
  field.first = static_cast<mjtNum*>(data);
  return field;
}

ffi::Error Make(Simulations& simulations, int64_t model, int count, int num_threads) {
  auto found = models.find(model);
  if (found == models.end()) {
    return ffi::Error::Internal("this program's model of MuJoCo was never loaded");
  }
  mjBatchConfig config;
  mjb_defaultConfig(&config);
  config.nthread = num_threads;
  char message[1000] = "";
  simulations.batch =
      mjb_makeBatch(found->second, count, &config, message, sizeof(message));
  if (!simulations.batch) return ffi::Error::Internal(message);
  const mjtNum* state = mjb_state(simulations.batch);
  simulations.start.assign(state, state + mjb_nstate(simulations.batch));
  return ffi::Error::Success();
}

// Returns a message about the first simulation that MuJoCo gave up.
ffi::Error Failed(mjBatch* batch) {
  const int* status = mjb_status(batch);
  int index = std::find_if(status, status + mjb_nsim(batch), [](int x) { return x; }) -
              status;
  return ffi::Error::Internal("MuJoCo failed in simulation " + std::to_string(index) +
                              ": " + mjb_error(batch, index));
}

// Sets `inputs` and `overrides` of all simulations, takes steps of physics and computes
// up to `stage` anew (without steps: everything), and returns `outputs`. Each argument
// and result is `[..., n]`.
ffi::Error AdvanceAll(int64_t model, std::string_view inputs,
                      std::string_view overrides, std::string_view outputs,
                      int64_t num_steps, int64_t stage, int64_t num_threads,
                      ffi::RemainingArgs arguments, ffi::RemainingRets results) {
  using Rows = ffi::Buffer<ffi::F32>;
  auto first = arguments.get<Rows>(0);
  if (!first) return first.error();
  int count = first->element_count() / first->dimensions().back();
  int threads = std::min<int>(num_threads ? num_threads : NumCores(), count);

  std::lock_guard<std::mutex> lock(turn);
  Key key(model, count, threads, std::string(overrides));
  Simulations& simulations = made[key];
  if (!simulations.batch) {
    ffi::Error error = Make(simulations, model, count, threads);
    if (error.failure()) return error;
  }
  mjtNum* state = mjb_state(simulations.batch);
  const std::vector<mjtNum>& start = simulations.start;
  for (int i = 0; i < count; ++i) {
    std::copy(start.begin(), start.end(), state + i * start.size());
  }
  int index = 0;
  for (bool of_model : {false, true}) {
    for (const std::string& name : Words(of_model ? overrides : inputs)) {
      Field field = Find(simulations, name, of_model);
      auto rows = arguments.get<Rows>(index++);
      if (!rows) return rows.error();
      if (rows->element_count() != static_cast<size_t>(count) * field.size) {
        return ffi::Error::InvalidArgument(name + " has another size in MuJoCo");
      }
      const float* from = rows->typed_data();
      for (int i = 0; i < count; ++i) {
        std::copy_n(from + i * field.size, field.size, field.first + i * field.stride);
      }
    }
  }
  std::vector<std::string> names = Words(outputs);
  for (const std::string& name : names) Find(simulations, name, false);
  int failed = num_steps ? mjb_step(simulations.batch, nullptr, 0, num_steps, stage)
                         : mjb_forward(simulations.batch, nullptr, 0, mjSTAGE_ACC);
  if (failed) return Failed(simulations.batch);
  for (size_t k = 0; k < names.size(); ++k) {
    Field field = Find(simulations, names[k], false);
    auto rows = results.get<Rows>(k);
    if (!rows) return rows.error();
    if ((*rows)->element_count() != static_cast<size_t>(count) * field.size) {
      return ffi::Error::InvalidArgument(names[k] + " has another size in MuJoCo");
    }
    float* to = (*rows)->typed_data();
    for (int i = 0; i < count; ++i) {
      std::copy_n(field.first + i * field.stride, field.size, to + i * field.size);
    }
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(Advance, AdvanceAll,
                              ffi::Ffi::Bind()
                                  .Attr<int64_t>("model")
                                  .Attr<std::string_view>("inputs")
                                  .Attr<std::string_view>("overrides")
                                  .Attr<std::string_view>("outputs")
                                  .Attr<int64_t>("num_steps")
                                  .Attr<int64_t>("stage")
                                  .Attr<int64_t>("num_threads")
                                  .RemainingArgs()
                                  .RemainingRets());

// Makes a model known under a number that programs call it by.
extern "C" void KnowModel(int64_t key, const mjModel* model) {
  std::lock_guard<std::mutex> lock(turn);
  if (!models.count(key)) models[key] = mj_copyModel(nullptr, model);
}
