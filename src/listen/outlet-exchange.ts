import { rpcErrorText, type SidecarError } from '../core/errors.ts'
import { Exchange, type Outlet } from '../core/exchange.ts'
import { type Wire, wireOfText } from '../core/wire.ts'

/** The way back for one message on a transport where everything leaves through one long-lived outlet. */
export class OutletExchange extends Exchange {
  readonly outlet: Outlet
  readonly attached = true
  readonly streaming = false
  readonly #idText: string | undefined
  readonly #requestId: string

  constructor(outlet: Outlet, idText: string | undefined, requestId: string) {
    super()
    this.outlet = outlet
    this.#idText = idText
    this.#requestId = requestId
  }

  get queuedBytes(): number {
    return this.outlet.queuedBytes
  }

  get pulse(): number {
    return this.outlet.pulse
  }

  onceDrained(then: () => void): void {
    this.outlet.onceDrained(then)
  }

  destroy(): void {
    this.outlet.destroy()
  }

  // The session ends with its outlet, and with it the call.
  onGone(): void {}
  setHeader(): void {}
  begin(): void {}

  send(wire: Wire): void {
    this.outlet.send(wire)
  }

  protected writeAnswer(wire: Wire): void {
    this.outlet.send(wire)
  }

  protected writeError(error: SidecarError): void {
    // A notification or response has no answer, not even a bad one.
    if (this.#idText === undefined) return
    this.outlet.send(wireOfText(rpcErrorText(error, this.#idText, this.#requestId)))
  }

  protected writeNothing(): void {}
}
