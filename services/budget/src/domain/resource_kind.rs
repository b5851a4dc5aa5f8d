//! Kinds of resources (资源).

text_enum! {
    /// What a programme hands out.
    ResourceKind {
        DigitalAsset = "DIGITAL_ASSET",
        HonourSystem = "HONOUR_SYSTEM",
        GiftKit = "GIFT_KIT",
        RegionalEvent = "REGIONAL_EVENT",
        Stipend = "STIPEND",
        GiftCard = "GIFT_CARD",
        LoanVehicle = "LOAN_VEHICLE",
        Travel = "TRAVEL",
        ProductionCrew = "PRODUCTION_CREW",
        EarlyAccess = "EARLY_ACCESS",
        InformationPrivilege = "INFORMATION_PRIVILEGE",
        PaidBoost = "PAID_BOOST",
    }
}
