// What Candle calls of cuBLAS and cuRAND to open a device: handles, with nothing behind them.

namespace {

int open(void** handle) {
    static int any;
    *handle = &any;
    return 0;
}

}  // namespace

extern "C" {

#ifdef MOCK_CUBLAS
int cublasCreate_v2(void** handle) { return open(handle); }
int cublasDestroy_v2(void*) { return 0; }
int cublasSetStream_v2(void*, void*) { return 0; }
#else
int curandCreateGenerator(void** generator, int) { return open(generator); }
int curandDestroyGenerator(void*) { return 0; }
int curandSetStream(void*, void*) { return 0; }
int curandSetPseudoRandomGeneratorSeed(void*, unsigned long long) { return 0; }
int curandSetGeneratorOffset(void*, unsigned long long) { return 0; }
#endif

}  // extern "C"
